{{/*
Every Secret that is none of a certificate, in one place: the hook draws those of source `generated`, ExternalSecrets fetch
those of `external`, and yours are told by it what they hold. A component adds a line under its own condition, a name of the
Secret to _names.tpl and to `jarvis.validateSecurity`, and `names` and `external.remote` to the schema. Each has
  name    in `security.secrets.names` and `.external.remote`
  secret  name of the Secret
  entry   key in the Secret
  drawn   whether the hook draws it as random text; otherwise a container of its own makes it
*/}}
{{- define "jarvis.secrets" -}}
- {name: cluster, secret: {{ include "jarvis.secret" . | quote }}, entry: cluster-secret, drawn: true}
{{- if .Values.security.encryption_enabled }}
- {name: encryption, secret: {{ include "jarvis.encryption" . | quote }}, entry: encryption-key, drawn: true}
{{- end }}
{{- if and .Values.backup.enabled .Values.security.encryption_enabled }}
- {name: backup_key, secret: {{ include "jarvis.backupKey" . | quote }}, entry: encryption-key, drawn: true}
{{- end }}
{{- if .Values.security.api_key_required }}
- {name: api_keys, secret: {{ include "jarvis.apiKeys" . | quote }}, entry: api-keys.json, drawn: false}
- {name: admin_token, secret: {{ include "jarvis.adminToken" . | quote }}, entry: token, drawn: false}
{{- end }}
{{- if include "jarvis.grafanaEnabled" . }}
- {name: grafana, secret: {{ include "jarvis.grafanaPassword" . | quote }}, entry: admin-password, drawn: true}
{{- end }}
{{- end }}

{{/* Whether the hook draws Secrets, as text: "true" or nothing. */}}
{{- define "jarvis.drawsSecrets" -}}
{{- if and .Values.security.enable_rbac (eq .Values.security.secrets.source "generated") }}true{{ end }}
{{- end }}

{{/* Whether there is anything for the hook to do, as text: "true" or nothing. */}}
{{- define "jarvis.hasSecretHook" -}}
{{- if or (include "jarvis.drawsSecrets" .) (include "jarvis.makesCertificates" .) (include "jarvis.claimsBackupVolume" .) }}true{{ end }}
{{- end }}

{{/* Whether the hook draws API keys, as text: "true" or nothing. */}}
{{- define "jarvis.drawsKeys" -}}
{{- if and (include "jarvis.drawsSecrets" .) .Values.security.api_key_required }}true{{ end }}
{{- end }}

{{/* Whether something is left for the second job to fill, as text: "true" or nothing. */}}
{{- define "jarvis.fillsSecrets" -}}
{{- if or (include "jarvis.drawsKeys" .) (include "jarvis.makesCertificates" .) }}true{{ end }}
{{- end }}

{{/* What the first job may do; `create` cannot be narrowed to names. */}}
{{- define "jarvis.createRules" -}}
{{- if or (include "jarvis.drawsSecrets" .) (include "jarvis.makesCertificates" .) }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
{{- end }}
{{- if include "jarvis.makesCertificates" . }}
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create]
{{- end }}
{{- if include "jarvis.claimsBackupVolume" . }}
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [create]
{{- end }}
{{- end }}

{{/* What the second job may do. */}}
{{- define "jarvis.fillRules" -}}
{{- if include "jarvis.drawsKeys" . }}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "jarvis.apiKeys" . | quote }}]
  verbs: [get, update]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "jarvis.adminToken" . | quote }}]
  verbs: [get]
{{- end }}
{{- if include "jarvis.makesCertificates" . }}
{{ include "jarvis.renewalRules" . }}
{{- end }}
{{- end }}

{{/* The containers of the first job. */}}
{{- define "jarvis.createContainers" -}}
{{- if include "jarvis.drawsSecrets" . }}
{{- range include "jarvis.secrets" . | fromYamlArray }}
{{- if .drawn }}
{{- $args := list "secret" "--namespace" $.Release.Namespace "--name" .secret "--key" .entry }}
{{ include "jarvis.secretContainer" (dict "root" $ "name" (.name | replace "_" "-") "args" $args) }}
{{- end }}
{{- end }}
{{- end }}
{{- if include "jarvis.drawsKeys" . }}
{{ include "jarvis.secretContainer" (dict "root" . "name" "api-keys" "args" (include "jarvis.keyArgs" (dict "root" . "action" "draw") | fromYamlArray)) }}
{{- end }}
{{- if include "jarvis.makesCertificates" . }}
{{- $args := list "empty" "--namespace" .Release.Namespace "--configmap" (include "jarvis.trust" .) "--secret" (include "jarvis.authority" .) }}
{{- range include "jarvis.certificates" . | fromYamlArray }}
{{- $args = concat $args (list "--secret" .secret) }}
{{- end }}
{{ include "jarvis.secretContainer" (dict "root" . "name" "certificates" "args" $args) }}
{{- end }}
{{- if include "jarvis.claimsBackupVolume" . }}
{{ include "jarvis.secretContainer" (dict "root" . "name" "backup-volume" "args" (include "jarvis.backupVolumeArgs" . | fromYamlArray)) }}
{{- end }}
{{- end }}

{{/* The containers of the second job. */}}
{{- define "jarvis.fillContainers" -}}
{{- if include "jarvis.drawsKeys" . }}
{{ include "jarvis.secretContainer" (dict "root" . "name" "api-keys" "args" (include "jarvis.keyArgs" (dict "root" . "action" "install") | fromYamlArray)) }}
{{- end }}
{{- if include "jarvis.makesCertificates" . }}
{{ include "jarvis.certificatesContainer" . }}
{{- end }}
{{- end }}

{{/* Arguments of a command of the first API key. Takes {root, action}. */}}
{{- define "jarvis.keyArgs" -}}
{{- list "api-key" .action "--namespace" .root.Release.Namespace "--keys-secret" (include "jarvis.apiKeys" .root) "--token-secret" (include "jarvis.adminToken" .root) | toJson }}
{{- end }}

{{/* A container of the hook. Takes {root, name, args}. */}}
{{- define "jarvis.secretContainer" -}}
- name: {{ .name }}
  image: {{ include "jarvis.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pull_policy }}
  args: {{ toJson .args }}
  {{- include "jarvis.containerSecurity" .root | nindent 2 }}
  resources:
    requests: {cpu: 50m, memory: 64Mi, ephemeral-storage: 16Mi}
    limits: {cpu: 500m, memory: 128Mi, ephemeral-storage: 64Mi}
{{- end }}
