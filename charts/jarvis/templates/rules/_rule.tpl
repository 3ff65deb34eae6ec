{{/*
The alert rules, `rules/NAME.yaml`: files of Prometheus, where `${name}` stands for what the values say. Prometheus' own
templates stay as they are: `{{ $value }}` means nothing to Helm there.
*/}}

{{/* Whether rules are rendered; empty for no. */}}
{{- define "jarvis.rulesEnabled" -}}
{{- if and .Values.monitoring.prometheus_enabled .Values.monitoring.alerting_enabled }}true{{ end }}
{{- end }}

{{/* What each `${name}` stands for, as YAML of texts. */}}
{{- define "jarvis.ruleValues" -}}
{{- $thresholds := .Values.monitoring.alert_thresholds }}
{{- $scaling := .Values.deployment.auto_scaling }}
{{- $absent := list }}
{{- range $index := until (int .Values.infrastructure.node_count) }}
{{- $absent = append $absent (printf "absent(up{namespace=%q, job=\"jarvis-crdt\", instance=\"%s-%d\"})" $.Release.Namespace (include "jarvis.crdt" $) $index) }}
{{- end }}
{{- $left := mul 14 86400 }}
{{- with .Values.security.certificates }}
{{- if eq .source "cert_manager" }}
{{- $left = min $left (mul .cert_manager.renew_before_hours 1800) }}
{{- end }}
{{- end }}
namespace: {{ .Release.Namespace | quote }}
runbooks: {{ .Values.monitoring.runbook_base_url | quote }}
cpu_usage: {{ int $thresholds.cpu_usage | quote }}
memory_usage: {{ int $thresholds.memory_usage | quote }}
disk_usage: {{ int $thresholds.disk_usage | quote }}
crdt_sync_latency: {{ int $thresholds.crdt_sync_latency | quote }}
backup_age: {{ int $thresholds.backup_age | quote }}
replication_factor: {{ int .Values.crdt.replication_factor | quote }}
backends_min: {{ ternary $scaling.min_replicas .Values.deployment.replicas $scaling.enabled | int | quote }}
certificate_left_seconds: {{ $left | quote }}
any_node_absent: {{ join " or " $absent | quote }}
{{- end }}

{{/* The rules as YAML: the text of each by the name of its file. Without backups none can be late. */}}
{{- define "jarvis.ruleFiles" -}}
{{- $values := include "jarvis.ruleValues" . | fromYaml }}
{{- $unused := ternary "" "JarvisBackupStale.yaml" .Values.backup.enabled }}
{{- range $path, $bytes := .Files.Glob "rules/*.yaml" }}
{{- if ne (base $path) $unused }}
{{- $text := toString $bytes }}
{{- range $name, $value := $values }}
{{- $text = replace (printf "${%s}" $name) $value $text }}
{{- end }}
{{ base $path }}: {{ toJson $text }}
{{- end }}
{{- end }}
{{- end }}
