{{/* Rules that span keys; the schema holds those of one key. The CLI has the same rules. */}}
{{- define "jarvis.validate" -}}
{{- $scaling := .Values.deployment.auto_scaling }}
{{- if gt (int $scaling.min_replicas) (int $scaling.max_replicas) }}
{{- fail (printf "deployment.auto_scaling.min_replicas (%d) is above max_replicas (%d): lower min_replicas or raise max_replicas" (int $scaling.min_replicas) (int $scaling.max_replicas)) }}
{{- end }}
{{- if gt (int .Values.crdt.replication_factor) (int .Values.infrastructure.node_count) }}
{{- fail (printf "crdt.replication_factor (%d) is above infrastructure.node_count (%d): lower replication_factor or raise node_count" (int .Values.crdt.replication_factor) (int .Values.infrastructure.node_count)) }}
{{- end }}
{{- end }}
