{{/* Whether Alertmanager is deployed: "true" or nothing. Without Prometheus nobody would send it alerts. */}}
{{- define "jarvis.alertmanagerEnabled" -}}
{{- with .Values.monitoring }}
{{- if and (eq .stack "bundled") .prometheus_enabled .alerting_enabled }}true{{ end }}
{{- end }}
{{- end }}

{{/* The receivers that are enabled, in the order of their routes, as JSON. */}}
{{- define "jarvis.receivers" -}}
{{- $enabled := list }}
{{- range $name := list "slack" "email" "pagerduty" }}
{{- if (index $.Values.notifications $name).enabled }}
{{- $enabled = append $enabled $name }}
{{- end }}
{{- end }}
{{- toJson $enabled }}
{{- end }}

{{/* The receivers whose secrets are mounted, as JSON: mail may need none. */}}
{{- define "jarvis.mountedSecrets" -}}
{{- $mounted := list }}
{{- range $name := include "jarvis.receivers" . | fromJsonArray }}
{{- if (index $.Values.notifications $name).existing_secret }}
{{- $mounted = append $mounted $name }}
{{- end }}
{{- end }}
{{- toJson $mounted }}
{{- end }}

{{/*
Alertmanager's configuration. Secrets are files, which it reads each time it sends, so that a changed one needs no restart.
The text of notifications is in notifications/jarvis.tmpl.
*/}}
{{- define "jarvis.alertmanagerConfig" -}}
{{- $notifications := .Values.notifications }}
{{- $receivers := include "jarvis.receivers" . | fromJsonArray }}
templates: [/etc/alertmanager/*.tmpl]
route:
  receiver: "null"
  group_by: [alertname, namespace]
  group_wait: {{ $notifications.wait_seconds }}s
  group_interval: {{ $notifications.interval_seconds }}s
  repeat_interval: {{ $notifications.repeat_minutes }}m
  routes:
    # It fires for ever, to show that alerts are evaluated at all; nobody wants to be told.
    - receiver: "null"
      matchers: ['alertname=~"(Jarvis)?Watchdog"']
    {{- range $name := $receivers }}
    {{- $receiver := index $notifications $name }}
    - receiver: {{ $name }}
      matchers: ['severity=~"{{ join "|" $receiver.severities }}"']
      continue: true
      {{- if eq $name "email" }}
      group_by: [namespace]
      group_wait: {{ $receiver.wait_seconds }}s
      group_interval: {{ $receiver.interval_seconds }}s
      repeat_interval: {{ $receiver.repeat_minutes }}m
      {{- end }}
    {{- end }}
inhibit_rules:
  - source_matchers: ['severity="critical"']
    target_matchers: ['severity=~"warning|info"']
    equal: [alertname, namespace]
receivers:
  - name: "null"
  {{- range $name := $receivers }}
  {{- $receiver := index $notifications $name }}
  {{- $secret := printf "/etc/jarvis-notifications/%s/secret" $name }}
  - name: {{ $name }}
  {{- if eq $name "slack" }}
    slack_configs:
      - api_url_file: {{ $secret }}
        {{- with $receiver.channel }}
        channel: {{ . | quote }}
        {{- end }}
        send_resolved: true
        title: {{`'{{ template "jarvis.title" . }}'`}}
        title_link: {{`'{{ .CommonAnnotations.runbook_url }}'`}}
        fallback: {{`'{{ template "jarvis.title" . }}'`}}
        color: {{`'{{ template "jarvis.color" . }}'`}}
        text: {{`'{{ template "jarvis.text" . }}'`}}
  {{- else if eq $name "email" }}
    email_configs:
      - to: {{ join ", " $receiver.to | quote }}
        from: {{ $receiver.from | quote }}
        smarthost: {{ $receiver.smarthost | quote }}
        require_tls: {{ $receiver.require_tls }}
        {{- with $receiver.username }}
        auth_username: {{ . | quote }}
        auth_password_file: {{ $secret }}
        {{- end }}
        send_resolved: true
        headers:
          Subject: {{`'{{ template "jarvis.title" . }}'`}}
        html: ""
        text: {{`'{{ template "jarvis.mail" . }}'`}}
  {{- else }}
    pagerduty_configs:
      - routing_key_file: {{ $secret }}
        url: {{ $receiver.url | quote }}
        send_resolved: true
        description: {{`'{{ template "jarvis.title" . }}'`}}
        severity: {{`'{{ template "jarvis.severity" . }}'`}}
        client: Jarvis
        links:
          - text: Runbook
            href: {{`'{{ .CommonAnnotations.runbook_url }}'`}}
  {{- end }}
  {{- end }}
{{- end }}

{{/* The ports that receivers are reached at, as JSON: numbers, because names select nothing outside of the cluster. */}}
{{- define "jarvis.notificationPorts" -}}
{{- $ports := list }}
{{- with .Values.notifications }}
{{- if .slack.enabled }}
{{- $ports = append $ports (int .slack.port) }}
{{- end }}
{{- if .email.enabled }}
{{- $ports = append $ports (regexFind "[0-9]+$" .email.smarthost | int) }}
{{- end }}
{{- if .pagerduty.enabled }}
{{- $url := urlParse .pagerduty.url }}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) }}
{{- $ports = append $ports ($port | default (ternary 443 80 (eq $url.scheme "https")) | int) }}
{{- end }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}
