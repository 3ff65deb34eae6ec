{{/*
What each certificate is to say, whoever makes it: the Secret that it is in, the names, and whether it serves both ends of
mutual TLS. The first name is its subject. Ten nodes share one, so that a larger cluster needs no other.
*/}}
{{- define "jarvis.certificates" -}}
{{- $nodes := list }}
{{- range until 10 }}
{{- $nodes = append $nodes (printf "%s-%d" (include "jarvis.crdt" $) .) }}
{{- end }}
{{- $crdt := include "jarvis.peers" . }}
{{- $api := include "jarvis.backend" . }}
{{- $domain := printf "%s.svc" .Release.Namespace }}
- name: node
  secret: {{ include "jarvis.nodeTls" . | quote }}
  peer: true
  names: {{ concat $nodes (list $crdt (printf "%s.%s" $crdt $domain)) | toJson }}
- name: backend
  secret: {{ include "jarvis.backendTls" . | quote }}
  peer: true
  names: [jarvis-backend]
- name: operator
  secret: {{ include "jarvis.operatorTls" . | quote }}
  peer: true
  names: [operator]
- name: api
  secret: {{ include "jarvis.apiTls" . | quote }}
  peer: false
  names: {{ concat (list $api (printf "%s.%s" $api .Release.Namespace) (printf "%s.%s" $api $domain) (printf "%s.%s.%s" $api $domain .Values.infrastructure.cluster_domain) "localhost") (include "jarvis.ingressNames" . | fromJsonArray) | toJson }}
  addresses: [127.0.0.1, "::1"]
{{- end }}

{{/* What makes and renews the certificates: each goes into a Secret of its own, so that a pod mounts only what it needs. */}}
{{- define "jarvis.certificatesContainer" -}}
- name: certificates
  image: {{ include "jarvis.image" . }}
  imagePullPolicy: {{ .Values.image.pull_policy }}
  args:
    - certificates
    - --namespace={{ .Release.Namespace }}
    - --authority={{ include "jarvis.authority" . }}
    - --bundle={{ include "jarvis.trust" . }}
    {{- range include "jarvis.certificates" . | fromYamlArray }}
    - --{{ ternary "peer" "server" .peer }}={{ .secret }}={{ concat .names (.addresses | default list) | join "," }}
    {{- end }}
  {{- include "jarvis.containerSecurity" . | nindent 2 }}
  resources:
    requests: {cpu: 50m, memory: 64Mi, ephemeral-storage: 16Mi}
    limits: {cpu: 500m, memory: 128Mi, ephemeral-storage: 64Mi}
{{- end }}

{{/* What may be read and replaced to renew them; each object is named. */}}
{{- define "jarvis.renewalRules" -}}
- apiGroups: [""]
  resources: [secrets]
  resourceNames:
    - {{ include "jarvis.authority" . }}
    {{- range include "jarvis.certificates" . | fromYamlArray }}
    - {{ .secret }}
    {{- end }}
  verbs: [get, update]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [{{ include "jarvis.trust" . }}]
  verbs: [get, update]
{{- end }}

{{/* Arguments for mutual TLS, and the Secret that they read; the mount follows a renewal, so it has no subPath. */}}
{{- define "jarvis.tlsArgs" -}}
- --tls-cert=/etc/jarvis-tls/tls.crt
- --tls-key=/etc/jarvis-tls/tls.key
- --tls-ca=/etc/jarvis-tls/ca.crt
{{- end }}

{{- define "jarvis.tlsMount" -}}
- name: tls
  mountPath: /etc/jarvis-tls
  readOnly: true
{{- end }}

{{/* Takes the name of the Secret. */}}
{{- define "jarvis.tlsVolume" -}}
- name: tls
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
{{- end }}

{{/* Whether jobs of this chart make and renew certificates, as text: "true" or nothing. */}}
{{- define "jarvis.makesCertificates" -}}
{{- if and .Values.security.enable_rbac .Values.security.enable_tls (eq .Values.security.certificates.source "self_signed") }}true{{ end }}
{{- end }}

{{/*
Where the authority of the API's certificate is, under `ca.crt`. Our own has a ConfigMap, which nobody must guard; others put
it beside the API's certificate.
*/}}
{{- define "jarvis.trustKind" -}}{{ ternary "ConfigMap" "Secret" (eq .Values.security.certificates.source "self_signed") }}{{- end }}
{{- define "jarvis.trustName" -}}
{{- if eq .Values.security.certificates.source "self_signed" }}{{ include "jarvis.trust" . }}{{ else }}{{ include "jarvis.apiTls" . }}{{ end }}
{{- end }}

{{/* The volume `trust` with `ca.crt`, for who calls the API; of a Secret it holds no more than that. */}}
{{- define "jarvis.trustVolume" -}}
- name: trust
  {{- if eq .Values.security.certificates.source "self_signed" }}
  configMap:
    name: {{ include "jarvis.trust" . }}
  {{- else }}
  secret:
    secretName: {{ include "jarvis.apiTls" . | quote }}
    items: [{key: ca.crt, path: ca.crt}]
    defaultMode: 0440
  {{- end }}
{{- end }}
