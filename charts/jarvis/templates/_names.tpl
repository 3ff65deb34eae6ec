{{/* Every name of an object, in one place. With release name `jarvis` they are jarvis-crdt, jarvis-backend, … */}}
{{- define "jarvis.crdt" -}}{{ .Release.Name }}-crdt{{- end }}
{{- define "jarvis.peers" -}}{{ .Release.Name }}-crdt-headless{{- end }}
{{- define "jarvis.backend" -}}{{ .Release.Name }}-backend{{- end }}
{{- define "jarvis.config" -}}{{ .Release.Name }}-config{{- end }}
{{- define "jarvis.secret" -}}{{ .Release.Name }}-cluster{{- end }}
{{- define "jarvis.secretHook" -}}{{ .Release.Name }}-secret-hook{{- end }}
{{- define "jarvis.image" -}}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{- end }}

{{/* Labels that never change: the only ones in selectors. Takes {root, component}. */}}
{{- define "jarvis.selector" -}}
app.kubernetes.io/name: jarvis
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of an object; those of a version stay off pods' volumes and selectors. Takes {root, component}. */}}
{{- define "jarvis.labels" -}}
{{ include "jarvis.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}
