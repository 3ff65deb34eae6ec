{{/* What every pod here has: what Pod Security `restricted` asks for, the secrets by which its images are pulled, its nodes. */}}
{{- define "jarvis.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.global.image_pull_secrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .Values.scheduling.node_selector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.tolerations }}
tolerations:
  {{- range . }}
  - key: {{ .key | quote }}
    operator: {{ ternary "Equal" "Exists" (not (empty .value)) }}
    {{- with .value }}
    value: {{ . | quote }}
    {{- end }}
    {{- with .effect }}
    effect: {{ . }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "jarvis.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Kubernetes copies this label from node to pod, from 1.35 on; before, the zone is empty. */}}
{{- define "jarvis.zone" -}}
- name: ZONE
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['topology.kubernetes.io/zone']
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
    secretName: {{ include "jarvis.secret" . | quote }}
    defaultMode: 0440
{{- end }}

{{/* A rollout follows a change of the configuration, of nodes only if it concerns them. */}}
{{- define "jarvis.configChecksum" -}}
checksum/config: {{ include "jarvis.configJson" . | sha256sum }}
{{- end }}

{{/* Where spans go, by OpenTelemetry's standard variables; nothing without a collector. */}}
{{- define "jarvis.tracingVariables" -}}
{{- with .Values.tracing }}
{{- if .endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ divf .sampling_percent 100 | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "jarvis.nodeConfigChecksum" -}}
checksum/config: {{ omit (include "jarvis.configJson" . | fromJson) "security" | toJson | sha256sum }}
{{- end }}
