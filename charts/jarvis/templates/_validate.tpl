{{/* A quantity as a number to compare: thousandths of a core, or Mi. The schema lets no other suffix through. */}}
{{- define "jarvis.amount" -}}
{{- $text := toString . }}
{{- if hasSuffix "m" $text }}{{ trimSuffix "m" $text | float64 }}
{{- else if hasSuffix "Mi" $text }}{{ trimSuffix "Mi" $text | float64 }}
{{- else if hasSuffix "Gi" $text }}{{ mulf (trimSuffix "Gi" $text | float64) 1024 }}
{{- else }}{{ mulf (float64 $text) 1000 }}{{ end }}
{{- end }}

{{/* Takes {requests, limits} and {above}, {below}: their paths. */}}
{{- define "jarvis.validateRequests" -}}
{{- range $name, $request := .requests }}
{{- $limit := index $.limits $name }}
{{- if gt (include "jarvis.amount" $request | float64) (include "jarvis.amount" $limit | float64) }}
{{- fail (printf "%s.%s (%s) is above %s.%s (%s): lower the request or raise the limit" $.above $name $request $.below $name $limit) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Rules that span keys; the schema holds those of one key. The CLI has the same rules, but for the release's name. */}}
{{- define "jarvis.validate" -}}
{{- $scaling := .Values.deployment.auto_scaling }}
{{- if gt (int $scaling.min_replicas) (int $scaling.max_replicas) }}
{{- fail (printf "deployment.auto_scaling.min_replicas (%d) is above max_replicas (%d): lower min_replicas or raise max_replicas" (int $scaling.min_replicas) (int $scaling.max_replicas)) }}
{{- end }}
{{- if gt (int .Values.crdt.replication_factor) (int .Values.infrastructure.node_count) }}
{{- fail (printf "crdt.replication_factor (%d) is above infrastructure.node_count (%d): lower replication_factor or raise node_count" (int .Values.crdt.replication_factor) (int .Values.infrastructure.node_count)) }}
{{- end }}
{{- include "jarvis.validateRequests" (dict "requests" .Values.deployment.resource_requests "limits" .Values.deployment.resource_limits "above" "deployment.resource_requests" "below" "deployment.resource_limits") }}
{{- range $size, $preset := .Values.instance_presets }}
{{- $path := printf "instance_presets.%s" $size }}
{{- include "jarvis.validateRequests" (dict "requests" $preset.requests "limits" $preset.limits "above" (printf "%s.requests" $path) "below" (printf "%s.limits" $path)) }}
{{- end }}
{{- /* A StatefulSet's pods carry its name and a hash in a label of at most 63 characters. */}}
{{- if gt (len .Release.Name) 47 }}
{{- fail (printf "the release name %s has %d characters: at most 47 leave room for the names made of it" .Release.Name (len .Release.Name)) }}
{{- end }}
{{- end }}
