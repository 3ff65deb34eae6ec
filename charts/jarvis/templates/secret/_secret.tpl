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
