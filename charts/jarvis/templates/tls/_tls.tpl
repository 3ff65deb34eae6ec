{{/* What makes and renews the certificates: each goes into a Secret of its own, so that a pod mounts only what it needs. */}}
{{- define "jarvis.certificatesContainer" -}}
{{- $nodes := list }}
{{- range until 10 }}
{{- $nodes = append $nodes (printf "%s-%d" (include "jarvis.crdt" $) .) }}
{{- end }}
{{- $crdt := include "jarvis.peers" . }}
{{- $api := include "jarvis.backend" . }}
{{- $domain := printf "%s.svc" .Release.Namespace }}
- name: certificates
  image: {{ include "jarvis.image" . }}
  imagePullPolicy: {{ .Values.image.pull_policy }}
  args:
    - certificates
    - --namespace={{ .Release.Namespace }}
    - --authority={{ include "jarvis.authority" . }}
    - --bundle={{ include "jarvis.trust" . }}
    - --peer={{ include "jarvis.nodeTls" . }}={{ join "," $nodes }},{{ $crdt }},{{ $crdt }}.{{ $domain }},{{ $crdt }}.{{ $domain }}.cluster.local
    - --peer={{ include "jarvis.backendTls" . }}=jarvis-backend
    - --peer={{ include "jarvis.operatorTls" . }}=operator
    - --server={{ include "jarvis.apiTls" . }}={{ $api }},{{ $api }}.{{ .Release.Namespace }},{{ $api }}.{{ $domain }},{{ $api }}.{{ $domain }}.cluster.local,localhost,127.0.0.1{{ range (include "jarvis.ingressNames" . | fromJsonArray) }},{{ . }}{{ end }}
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
    - {{ include "jarvis.nodeTls" . }}
    - {{ include "jarvis.backendTls" . }}
    - {{ include "jarvis.operatorTls" . }}
    - {{ include "jarvis.apiTls" . }}
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
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
