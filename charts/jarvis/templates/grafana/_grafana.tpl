{{/* Whether the chart runs a Grafana of its own; empty for no. */}}
{{- define "jarvis.grafanaEnabled" -}}
{{- if and .Values.monitoring.grafana_enabled (eq .Values.monitoring.stack "bundled") }}true{{ end }}
{{- end }}

{{/* Dashboards choose their data source themselves: the default one of type prometheus, unless somebody picks another. */}}
{{- define "jarvis.grafanaDataSource" -}}
apiVersion: 1
prune: true
datasources:
  - name: Prometheus
    uid: jarvis-prometheus
    type: prometheus
    access: proxy
    url: http://{{ include "jarvis.prometheus" . }}:9090
    isDefault: true
    editable: false
    jsonData:
      httpMethod: POST
      prometheusType: Prometheus
      # As often as Prometheus scrapes: no shorter step shows more.
      timeInterval: 15s
{{- end }}

{{- define "jarvis.grafanaProviders" -}}
apiVersion: 1
providers:
  - name: jarvis
    orgId: 1
    folder: Jarvis
    type: file
    disableDeletion: true
    allowUiUpdates: false
    # A kubelet takes up to a minute to bring a changed ConfigMap.
    updateIntervalSeconds: 60
    options:
      path: /etc/grafana/dashboards
{{- end }}
