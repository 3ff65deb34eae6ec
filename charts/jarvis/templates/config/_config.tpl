{{/* The service's configuration file. Key order is fixed, so that two renders are identical. */}}
{{- define "jarvis.configJson" -}}
{{- $crdt := dict
  "cluster_enabled" .Values.crdt.cluster_enabled
  "sync_interval_seconds" (int .Values.crdt.sync_interval)
  "replication_factor" (int .Values.crdt.replication_factor) }}
{{- dict
  "environment" .Values.deployment.environment
  "crdt" $crdt
  "peer_service" (printf "%s.%s.svc.cluster.local" (include "jarvis.peers" .) .Release.Namespace)
  "peer_port" 8001 | toPrettyJson }}
{{- end }}
