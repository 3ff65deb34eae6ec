{{/*
The table at the top of NOTES.txt. A component adds a row: a template `jarvis.notes.NAME` that returns the JSON array
[component, where, how many], or nothing where it is not deployed, and NAME to the list below.
*/}}
{{- define "jarvis.notesTable" -}}
{{- $rows := list (list "Component" "Where" "How many") }}
{{- range list "nodes" "backend" "backup" "ingress" "gateway" "prometheus" "alertmanager" "grafana" "rules" "dashboards" }}
{{- with include (printf "jarvis.notes.%s" .) $ }}
{{- $rows = append $rows (fromJsonArray .) }}
{{- end }}
{{- end }}
{{- $first := 0 }}
{{- $second := 0 }}
{{- range $rows }}
{{- $first = max $first (len (index . 0)) }}
{{- $second = max $second (len (index . 1)) }}
{{- end }}
{{- range $rows }}
{{ printf "  %-*s   %-*s   %s" (int $first) (index . 0) (int $second) (index . 1) (index . 2) }}
{{- end }}
{{- end }}

{{- define "jarvis.notes.nodes" -}}
{{- $nodes := .Values.infrastructure }}
{{- list "CRDT nodes" (printf "statefulset/%s" (include "jarvis.crdt" .)) (printf "%d x %s, %s each" (int $nodes.node_count) $nodes.instance_type $nodes.storage_size) | toJson }}
{{- end }}

{{- define "jarvis.notes.backend" -}}
{{- $scaling := .Values.deployment.auto_scaling }}
{{- $pods := ternary (printf "%d to %d pods" (int $scaling.min_replicas) (int $scaling.max_replicas)) (include "jarvis.notesPods" .Values.deployment.replicas) $scaling.enabled }}
{{- list "Backend" (printf "deployment/%s" (include "jarvis.backend" .)) (printf "%s, port 8000" $pods) | toJson }}
{{- end }}

{{- define "jarvis.notes.backup" -}}
{{- with .Values.backup }}
{{- if .enabled }}
{{- $place := ternary (printf "in the bucket %s" .s3.bucket) (printf "on a volume of %s" .volume.size) (eq .destination "s3") }}
{{- $kept := printf "%d hourly, %d daily, %d weekly" (int .retention.hourly) (int .retention.daily) (int .retention.weekly) }}
{{- list "Backups" (printf "cronjob/%s" (include "jarvis.backupJob" $)) (printf "at %s, %s kept %s" .schedule $kept $place) | toJson }}
{{- end }}
{{- end }}
{{- end }}

{{- define "jarvis.notes.ingress" -}}
{{- with .Values.ingress }}
{{- if .enabled }}
{{- list "Ingress" (printf "ingress/%s" (include "jarvis.backend" $)) (printf "for %s" (join ", " .hosts)) | toJson }}
{{- end }}
{{- end }}
{{- end }}

{{- define "jarvis.notes.gateway" -}}
{{- with .Values.gateway }}
{{- if .enabled }}
{{- $parents := list }}
{{- range .parent_refs }}
{{- $parents = append $parents .name }}
{{- end }}
{{- list "Gateway" (printf "httproute/%s" (include "jarvis.backend" $)) (printf "at %s" (join ", " $parents)) | toJson }}
{{- end }}
{{- end }}
{{- end }}

{{- define "jarvis.notes.prometheus" -}}
{{- if include "jarvis.prometheusEnabled" . }}
{{- $kept := printf "%s of metrics in %s" .Values.monitoring.metrics_retention .Values.monitoring.prometheus.storage_size }}
{{- list "Prometheus" (printf "deployment/%s" (include "jarvis.prometheus" .)) (printf "1 pod, port 9090, %s" $kept) | toJson }}
{{- end }}
{{- end }}

{{- define "jarvis.notes.alertmanager" -}}
{{- if include "jarvis.alertmanagerEnabled" . }}
{{- $told := include "jarvis.receivers" . | fromJsonArray | join ", " | default "nobody" }}
{{- list "Alertmanager" (printf "deployment/%s" (include "jarvis.alertmanager" .)) (printf "1 pod, port 9093, tells %s" $told) | toJson }}
{{- end }}
{{- end }}

{{- define "jarvis.notes.grafana" -}}
{{- if include "jarvis.grafanaEnabled" . }}
{{- list "Grafana" (printf "deployment/%s" (include "jarvis.grafana" .)) "1 pod, port 3000" | toJson }}
{{- end }}
{{- end }}

{{- define "jarvis.notes.rules" -}}
{{- if include "jarvis.rulesEnabled" . }}
{{- $kind := ternary "prometheusrule" "configmap" (eq .Values.monitoring.stack "existing") }}
{{- list "Alert rules" (printf "%s/%s" $kind (include "jarvis.rules" .)) (printf "%d rules" (len (include "jarvis.ruleFiles" . | fromYaml))) | toJson }}
{{- end }}
{{- end }}

{{- define "jarvis.notes.dashboards" -}}
{{- if .Values.monitoring.grafana_enabled }}
{{- $count := 0 }}
{{- range $path, $_ := .Files.Glob "dashboards/*.json" }}
{{- $count = add $count 1 }}
{{- end }}
{{- list "Dashboards" (printf "configmap/%s" (include "jarvis.dashboards" .)) (printf "%d dashboards" $count) | toJson }}
{{- end }}
{{- end }}

{{- define "jarvis.notesPods" -}}
{{ . }} {{ ternary "pod" "pods" (eq (int .) 1) }}
{{- end }}
