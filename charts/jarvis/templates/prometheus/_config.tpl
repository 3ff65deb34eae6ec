{{/* Whether the chart has a Prometheus of its own: `true`, or nothing. */}}
{{- define "jarvis.prometheusEnabled" -}}
{{- if and (eq .Values.monitoring.stack "bundled") .Values.monitoring.prometheus_enabled }}true{{ end }}
{{- end }}

{{/* Whether the Prometheus of the cluster is told what to scrape: `true`, or nothing. */}}
{{- define "jarvis.podMonitorsEnabled" -}}
{{- if and (eq .Values.monitoring.stack "existing") .Values.monitoring.prometheus_enabled }}true{{ end }}
{{- end }}

{{/*
Labels of every series, from the pod that a target is; dashboards and rules choose by `namespace`. Without a label of its
zone (Kubernetes before 1.35) a pod has none. Takes the name of the container's port; the names of the fields are those of
prometheus.yml, which PodMonitors write in camel case.
*/}}
{{- define "jarvis.podRelabeling" -}}
- {source_labels: [__meta_kubernetes_pod_container_port_name], regex: {{ . }}, action: keep}
- {source_labels: [__meta_kubernetes_pod_phase], regex: Succeeded|Failed, action: drop}
- {source_labels: [__meta_kubernetes_namespace], target_label: namespace}
- {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
- {source_labels: [__meta_kubernetes_pod_name], target_label: instance}
- {source_labels: [__meta_kubernetes_pod_label_topology_kubernetes_io_zone], target_label: zone}
{{- end }}

{{/* How the pods of a component are found and scraped. Takes {root, component, port}. */}}
{{- define "jarvis.scrapeConfig" -}}
- job_name: jarvis-{{ .component }}
  kubernetes_sd_configs:
    - role: pod
      namespaces: {names: [{{ .root.Release.Namespace | quote }}]}
      selectors:
        - role: pod
          label: app.kubernetes.io/name=jarvis,app.kubernetes.io/instance={{ .root.Release.Name }},app.kubernetes.io/component={{ .component }}
  relabel_configs:
    {{- include "jarvis.podRelabeling" .port | nindent 4 }}
{{- end }}

{{- define "jarvis.prometheusConfig" -}}
global:
  scrape_interval: 15s
  scrape_timeout: 10s
  evaluation_interval: 15s
storage:
  tsdb:
    retention:
      time: {{ .Values.monitoring.metrics_retention }}
      # Blocks go before the volume is full, and leave room for the log ahead of them and for compaction.
      size: {{ include "jarvis.fourFifths" .Values.monitoring.prometheus.storage_size }}
rule_files: [/etc/prometheus/rules/*.yaml]
{{- if include "jarvis.alertmanagerEnabled" . }}
alerting:
  alertmanagers:
    - static_configs:
        - targets: ["{{ include "jarvis.alertmanager" . }}:9093"]
{{- end }}
scrape_configs:
  {{- include "jarvis.scrapeConfig" (dict "root" . "component" "backend" "port" "http") | nindent 2 }}
    {{- if .Values.security.enable_tls }}
    scheme: https
    tls_config:
      ca_file: /etc/jarvis-ca/ca.crt
      # Targets are addresses; certificates name the Service.
      server_name: {{ include "jarvis.backend" . }}
    {{- end }}
  {{- include "jarvis.scrapeConfig" (dict "root" . "component" "crdt" "port" "metrics") | nindent 2 }}
{{- end }}

{{/* Four fifths of a volume in Prometheus' units, in which MB is Mi. Takes the size, in Gi or Ti. */}}
{{- define "jarvis.fourFifths" -}}
{{- $gibibytes := mul (regexFind "^[0-9]+" .) (ternary 1024 1 (hasSuffix "Ti" .)) }}
{{- div (mul $gibibytes 1024 4) 5 }}MB
{{- end }}
