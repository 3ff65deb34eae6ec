{{/* The service's configuration file. Key order is fixed, so that two renders are identical. */}}
{{- define "jarvis.configJson" -}}
{{- $rules := list }}
{{- range .Values.crdt.conflict_rules }}
{{- $rules = append $rules (dict "prefix" (default "" .prefix) "type" (default "any" .type) "strategy" .strategy "sources" (default list .sources)) }}
{{- end }}
{{- $gossip := dict
  "enabled" .Values.crdt.gossip_protocol.enabled
  "interval_seconds" (int .Values.crdt.gossip_protocol.interval)
  "fanout" (int .Values.crdt.gossip_protocol.fanout) }}
{{- $crdt := dict
  "cluster_enabled" .Values.crdt.cluster_enabled
  "sync_interval_seconds" (int .Values.crdt.sync_interval)
  "replication_factor" (int .Values.crdt.replication_factor)
  "gossip" $gossip
  "conflict_resolution" .Values.crdt.conflict_resolution
  "conflict_rules" $rules }}
{{- $limits := .Values.security.rate_limiting }}
{{- $security := dict
  "api_key_required" .Values.security.api_key_required
  "rate_limiting" (dict
    "enabled" $limits.enabled
    "requests_per_minute" (int $limits.requests_per_minute)
    "burst_limit" (int $limits.burst_limit)) }}
{{- dict
  "environment" .Values.deployment.environment
  "crdt" $crdt
  "security" $security
  "peer_service" (printf "%s.%s.svc" (include "jarvis.peers" .) .Release.Namespace)
  "peer_port" 8001 | toPrettyJson }}
{{- end }}
