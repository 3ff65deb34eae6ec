{{/* The file of plugins. Where code is mounted follows from its name. */}}
{{- define "jarvis.pluginsJson" -}}
{{- $plugins := list }}
{{- range .Values.plugins }}
{{- $plugins = append $plugins (dict
  "name" .name
  "required" (default false .required)
  "timeout_ms" (int (default 1000 .timeout_ms))
  "memory_mib" (int (default 256 .memory_mib))
  "settings" (default dict .settings)) }}
{{- end }}
{{- dict "directory" "/etc/jarvis-plugins" "plugins" $plugins | toPrettyJson }}
{{- end }}

{{/* The plugins whose strategies conflict rules name, as JSON: what nodes need. */}}
{{- define "jarvis.nodePlugins" -}}
{{- $named := dict }}
{{- range .Values.crdt.conflict_rules }}
{{- if contains "." .strategy }}
{{- $_ := set $named (splitList "." .strategy | first) true }}
{{- end }}
{{- end }}
{{- $plugins := list }}
{{- range .Values.plugins }}
{{- if hasKey $named .name }}
{{- $plugins = append $plugins . }}
{{- end }}
{{- end }}
{{- toJson $plugins }}
{{- end }}

{{/* Takes plugins. A rollout follows a change of them. */}}
{{- define "jarvis.pluginsChecksum" -}}
checksum/plugins: {{ toJson . | sha256sum }}
{{- end }}

{{/* Takes plugins. */}}
{{- define "jarvis.pluginMounts" -}}
- name: plugins
  mountPath: /etc/jarvis-plugins.json
  subPath: plugins.json
  readOnly: true
{{- range . }}
{{- if .source }}
- name: plugins
  mountPath: /etc/jarvis-plugins/{{ .name }}.py
  subPath: {{ .name }}.py
  readOnly: true
{{- else if .image }}
- name: plugin-{{ .name }}
  mountPath: /etc/jarvis-plugins/{{ .name }}
  readOnly: true
{{- end }}
{{- end }}
{{- end }}

{{/* Takes {root} and {plugins}. */}}
{{- define "jarvis.pluginVolumes" -}}
- name: plugins
  configMap:
    name: {{ include "jarvis.plugins" .root }}
{{- range .plugins }}
{{- if .image }}
- name: plugin-{{ .name }}
  emptyDir: {sizeLimit: 256Mi}
{{- end }}
{{- end }}
{{- end }}

{{/*
Takes {root} and {plugins}. An init container for each plugin with an image: it copies the plugin to where the service
looks for it.
*/}}
{{- define "jarvis.pluginCopies" -}}
{{- range .plugins }}
{{- if .image }}
- name: plugin-{{ .name }}
  image: {{ print (include "jarvis.registry" $.root) .image | quote }}
  imagePullPolicy: {{ $.root.Values.image.pull_policy }}
  command: [cp, -r, /plugin/., /target]
  {{- include "jarvis.containerSecurity" $.root | nindent 2 }}
  resources:
    requests: {cpu: 10m, memory: 16Mi, ephemeral-storage: 1Mi}
    limits: {cpu: 500m, memory: 64Mi, ephemeral-storage: 256Mi}
  volumeMounts:
    - name: plugin-{{ .name }}
      mountPath: /target
{{- end }}
{{- end }}
{{- end }}
