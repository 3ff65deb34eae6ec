{{/* Every name of an object, in one place. With release name `jarvis` they are jarvis-crdt, jarvis-backend, … */}}
{{- define "jarvis.crdt" -}}{{ .Release.Name }}-crdt{{- end }}
{{- define "jarvis.peers" -}}{{ .Release.Name }}-crdt-headless{{- end }}
{{- define "jarvis.backend" -}}{{ .Release.Name }}-backend{{- end }}
{{- define "jarvis.config" -}}{{ .Release.Name }}-config{{- end }}
{{- define "jarvis.plugins" -}}{{ .Release.Name }}-plugins{{- end }}
{{- define "jarvis.secret" -}}{{ .Values.security.secrets.names.cluster | default (printf "%s-cluster" .Release.Name) }}{{- end }}
{{- define "jarvis.encryption" -}}{{ .Values.security.secrets.names.encryption | default (printf "%s-encryption" .Release.Name) }}{{- end }}
{{- define "jarvis.apiKeys" -}}{{ .Values.security.secrets.names.api_keys | default (printf "%s-api-keys" .Release.Name) }}{{- end }}
{{- define "jarvis.grafanaPassword" -}}{{ .Values.security.secrets.names.grafana | default (printf "%s-grafana" .Release.Name) }}{{- end }}
{{- define "jarvis.adminToken" -}}{{ .Values.security.secrets.names.admin_token | default (printf "%s-admin-token" .Release.Name) }}{{- end }}
{{- define "jarvis.authority" -}}{{ .Release.Name }}-authority{{- end }}
{{- define "jarvis.selfSigned" -}}{{ .Release.Name }}-self-signed{{- end }}
{{- define "jarvis.trust" -}}{{ .Release.Name }}-ca{{- end }}
{{- define "jarvis.nodeTls" -}}{{ .Values.security.certificates.names.node | default (printf "%s-node-tls" .Release.Name) }}{{- end }}
{{- define "jarvis.backendTls" -}}{{ .Values.security.certificates.names.backend | default (printf "%s-backend-tls" .Release.Name) }}{{- end }}
{{- define "jarvis.operatorTls" -}}{{ .Values.security.certificates.names.operator | default (printf "%s-operator-tls" .Release.Name) }}{{- end }}
{{- define "jarvis.apiTls" -}}{{ .Values.security.certificates.names.api | default (printf "%s-api-tls" .Release.Name) }}{{- end }}
{{- define "jarvis.ingressTls" -}}{{ .Release.Name }}-ingress-tls{{- end }}
{{- /* Takes {root, name}: a Certificate's object, whatever its Secret is called. */}}
{{- define "jarvis.certificate" -}}{{ .root.Release.Name }}-{{ .name }}-tls{{- end }}
{{- /* Short: a CronJob's name leaves 11 of 63 characters to those of its Jobs. */}}
{{- define "jarvis.renewal" -}}{{ .Release.Name }}-tls{{- end }}
{{- define "jarvis.secretHook" -}}{{ .Release.Name }}-secret-hook{{- end }}
{{- define "jarvis.fillHook" -}}{{ .Release.Name }}-fill-hook{{- end }}
{{- define "jarvis.resizeHook" -}}{{ .Release.Name }}-resize-hook{{- end }}
{{- define "jarvis.prometheus" -}}{{ .Release.Name }}-prometheus{{- end }}
{{- define "jarvis.alertmanager" -}}{{ .Release.Name }}-alertmanager{{- end }}
{{- define "jarvis.grafana" -}}{{ .Release.Name }}-grafana{{- end }}
{{- define "jarvis.rules" -}}{{ .Release.Name }}-rules{{- end }}
{{- define "jarvis.dashboards" -}}{{ .Release.Name }}-dashboards{{- end }}
{{- define "jarvis.backup" -}}{{ .Release.Name }}-backup{{- end }}
{{- define "jarvis.backupKey" -}}{{ .Values.security.secrets.names.backup_key | default (printf "%s-backup-key" .Release.Name) }}{{- end }}
{{- /* Short, as that of the renewal. */}}
{{- define "jarvis.backupJob" -}}{{ .Release.Name }}-bkp{{- end }}
{{- define "jarvis.image" -}}{{ include "jarvis.imageName" (dict "root" . "image" .Values.image) }}{{- end }}

{{/*
Takes {root, image}: an image's keys of the values, of which `repository` is needed. A registry takes the place of
`localhost`, under which images are that are published nowhere.
*/}}
{{- define "jarvis.imageName" -}}
{{- $registry := include "jarvis.registry" .root }}
{{- $registry }}{{ ternary (trimPrefix "localhost/" .image.repository) .image.repository (ne $registry "") }}
{{- with .image.digest }}@{{ . }}{{ else }}:{{ .image.tag | default (include "jarvis.imageTag" .root) }}{{ end }}
{{- end }}

{{/* The chart's appVersion as a tag, which holds no `+`, though a version does before its build metadata. */}}
{{- define "jarvis.imageTag" -}}
{{- mustRegexReplaceAll "[^A-Za-z0-9_.-]" (toString .Chart.AppVersion) "_" | trunc 128 }}
{{- end }}

{{/* A text as the value of a label: at most 63 letters, digits, `-`, `_` and `.`, the first and last a letter or digit. */}}
{{- define "jarvis.labelValue" -}}
{{- mustRegexReplaceAll "[^A-Za-z0-9_.-]" (toString .) "_" | trimAll "-_." | trunc 63 | trimAll "-_." }}
{{- end }}

{{/* What stands before the name of every image. */}}
{{- define "jarvis.registry" -}}{{ with .Values.global.image_registry }}{{ . }}/{{ end }}{{- end }}

{{/* Labels that never change: the only ones in selectors. Takes {root, component}. */}}
{{- define "jarvis.selector" -}}
app.kubernetes.io/name: jarvis
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of an object; those of a version stay off pods' volumes and selectors. Takes {root, component}. */}}
{{- define "jarvis.labels" -}}
{{ include "jarvis.selector" . }}
app.kubernetes.io/version: {{ include "jarvis.labelValue" .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ include "jarvis.labelValue" (printf "%s-%s" .root.Chart.Name .root.Chart.Version) | quote }}
{{- end }}
