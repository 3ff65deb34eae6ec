{{/* What Pod Security `restricted` asks of every pod here. */}}
{{- define "jarvis.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "jarvis.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* The configuration file and the cluster's secret, which nodes and backend share. */}}
{{- define "jarvis.sharedMounts" -}}
- name: config
  mountPath: /etc/jarvis
  readOnly: true
- name: secret
  mountPath: /etc/jarvis-secret
  readOnly: true
{{- end }}

{{- define "jarvis.sharedVolumes" -}}
- name: config
  configMap:
    name: {{ include "jarvis.config" . }}
- name: secret
  secret:
    secretName: {{ include "jarvis.secret" . }}
    defaultMode: 0440
{{- end }}

{{/* A rollout follows a change of the configuration. */}}
{{- define "jarvis.configChecksum" -}}
checksum/config: {{ include "jarvis.configJson" . | sha256sum }}
{{- end }}
