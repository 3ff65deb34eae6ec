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

{{/* Who is told of alerts: something sends it, and what it needs is there. */}}
{{- define "jarvis.validateNotifications" -}}
{{- $monitoring := .Values.monitoring }}
{{- $needed := dict "slack" (list "existing_secret") "email" (list "to" "from" "smarthost") "pagerduty" (list "existing_secret") }}
{{- range $name, $keys := $needed }}
{{- $receiver := index $.Values.notifications $name }}
{{- $path := printf "notifications.%s" $name }}
{{- if $receiver.enabled }}
{{- if ne $monitoring.stack "bundled" }}
{{- fail (printf "%s.enabled is true while monitoring.stack is existing: set enabled to false, and configure the cluster's own Alertmanager" $path) }}
{{- end }}
{{- range $switch := list "prometheus_enabled" "alerting_enabled" }}
{{- if not (index $monitoring $switch) }}
{{- fail (printf "%s.enabled is true while monitoring.%s is false, so that nothing is sent: set one of them as the other" $path $switch) }}
{{- end }}
{{- end }}
{{- range $key := $keys }}
{{- if not (index $receiver $key) }}
{{- fail (printf "%s.%s is empty while %s.enabled is true: fill it, or set enabled to false" $path $key $path) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.notifications.email }}
{{- if and .username (not .existing_secret) }}
{{- fail "notifications.email.existing_secret is empty while there is a username: name the Secret with its password, or remove username" }}
{{- else if and .existing_secret (not .username) }}
{{- fail "notifications.email.username is empty while there is an existing_secret: fill it, or remove existing_secret" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where Secrets and certificates come from: what names a source counts for that source alone, so that no slip makes others. */}}
{{- define "jarvis.validateSecurity" -}}
{{- $secrets := .Values.security.secrets }}
{{- if and (eq $secrets.source "external") (not $secrets.external.store_name) }}
{{- fail "security.secrets.external.store_name is empty while security.secrets.source is external: name the store, or choose another source" }}
{{- else if and (ne $secrets.source "external") $secrets.external.store_name }}
{{- fail (printf "security.secrets.external.store_name is given while security.secrets.source is %s: remove it, or set source to external" $secrets.source) }}
{{- end }}
{{- $certificates := .Values.security.certificates }}
{{- $manager := $certificates.cert_manager }}
{{- if and (ne $certificates.source "cert_manager") $manager.issuer_name }}
{{- fail (printf "security.certificates.cert_manager.issuer_name is given while security.certificates.source is %s: remove it, or set source to cert_manager" $certificates.source) }}
{{- end }}
{{- if ge (int $manager.renew_before_hours) (int $manager.duration_hours) }}
{{- fail (printf "security.certificates.cert_manager.renew_before_hours (%d) is not below duration_hours (%d): lower renew_before_hours or raise duration_hours" (int $manager.renew_before_hours) (int $manager.duration_hours)) }}
{{- end }}
{{- if eq $certificates.source "self_signed" }}
{{- range $name, $value := $certificates.names }}
{{- if $value }}
{{- fail (printf "security.certificates.names.%s is given while security.certificates.source is self_signed, which would write over that Secret: remove it, or set source to existing or cert_manager" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- $used := dict (include "jarvis.authority" .) "the authority" (include "jarvis.ingressTls" .) "the Ingress" }}
{{- range $path, $secret := dict "secrets.names.cluster" (include "jarvis.secret" .) "secrets.names.encryption" (include "jarvis.encryption" .) "secrets.names.api_keys" (include "jarvis.apiKeys" .) "secrets.names.admin_token" (include "jarvis.adminToken" .) "secrets.names.backup_key" (include "jarvis.backupKey" .) "secrets.names.grafana" (include "jarvis.grafanaPassword" .) "certificates.names.node" (include "jarvis.nodeTls" .) "certificates.names.backend" (include "jarvis.backendTls" .) "certificates.names.operator" (include "jarvis.operatorTls" .) "certificates.names.api" (include "jarvis.apiTls" .) }}
{{- if hasKey $used $secret }}
{{- fail (printf "security.%s is %s, as the Secret of %s: give each a Secret of its own" $path $secret (index $used $secret)) }}
{{- end }}
{{- $_ := set $used $secret $path }}
{{- end }}
{{- end }}

{{/* Where backups go. */}}
{{- define "jarvis.validateBackup" -}}
{{- if and .Values.backup.enabled (eq .Values.backup.destination "s3") }}
{{- range $key := list "endpoint" "bucket" "existing_secret" }}
{{- if not (index $.Values.backup.s3 $key) }}
{{- fail (printf "backup.s3.%s is empty while backup.destination is s3: fill it, or set destination to volume" $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Rules that span keys; the schema holds those of one key. The CLI has the same rules, but for the release's name. */}}
{{- define "jarvis.validate" -}}
{{- include "jarvis.validateBackup" . }}
{{- $scaling := .Values.deployment.auto_scaling }}
{{- if gt (int $scaling.min_replicas) (int $scaling.max_replicas) }}
{{- fail (printf "deployment.auto_scaling.min_replicas (%d) is above max_replicas (%d): lower min_replicas or raise max_replicas" (int $scaling.min_replicas) (int $scaling.max_replicas)) }}
{{- end }}
{{- if gt (int .Values.crdt.replication_factor) (int .Values.infrastructure.node_count) }}
{{- fail (printf "crdt.replication_factor (%d) is above infrastructure.node_count (%d): lower replication_factor or raise node_count" (int .Values.crdt.replication_factor) (int .Values.infrastructure.node_count)) }}
{{- end }}
{{- if and .Values.crdt.conflict_rules (ne .Values.crdt.conflict_resolution "advanced") }}
{{- fail (printf "crdt.conflict_rules is given while crdt.conflict_resolution is %s: remove the rules, or set conflict_resolution to advanced" .Values.crdt.conflict_resolution) }}
{{- end }}
{{- range $index, $rule := .Values.crdt.conflict_rules }}
{{- if and (eq $rule.strategy "priority") (not $rule.sources) }}
{{- fail (printf "crdt.conflict_rules.%d.sources is empty while its strategy is priority: name nodes, or choose another strategy" $index) }}
{{- else if and (ne $rule.strategy "priority") (not (contains "." $rule.strategy)) $rule.sources }}
{{- fail (printf "crdt.conflict_rules.%d.sources is given while its strategy is %s: remove sources, or set strategy to priority" $index $rule.strategy) }}
{{- end }}
{{- end }}
{{- $names := dict }}
{{- range $index, $plugin := .Values.plugins }}
{{- if hasKey $names $plugin.name }}
{{- fail (printf "plugins.%d.name is %s, as another plugin's: give each a name of its own" $index $plugin.name) }}
{{- end }}
{{- $_ := set $names $plugin.name true }}
{{- if and $plugin.source $plugin.image }}
{{- fail (printf "plugins.%d.image is given beside its source: remove one of them" $index) }}
{{- end }}
{{- end }}
{{- range $index, $rule := .Values.crdt.conflict_rules }}
{{- if and (contains "." $rule.strategy) (not (hasKey $names (splitList "." $rule.strategy | first))) }}
{{- fail (printf "crdt.conflict_rules.%d.strategy is %s, of a plugin that is not in plugins: add the plugin, or choose another strategy" $index $rule.strategy) }}
{{- end }}
{{- end }}
{{- include "jarvis.validateRequests" (dict "requests" .Values.deployment.resource_requests "limits" .Values.deployment.resource_limits "above" "deployment.resource_requests" "below" "deployment.resource_limits") }}
{{- $resources := .Values.monitoring.prometheus.resources }}
{{- include "jarvis.validateRequests" (dict "requests" $resources.requests "limits" $resources.limits "above" "monitoring.prometheus.resources.requests" "below" "monitoring.prometheus.resources.limits") }}
{{- range $size, $preset := .Values.instance_presets }}
{{- $path := printf "instance_presets.%s" $size }}
{{- include "jarvis.validateRequests" (dict "requests" $preset.requests "limits" $preset.limits "above" (printf "%s.requests" $path) "below" (printf "%s.limits" $path)) }}
{{- end }}
{{- with .Values.ingress }}
{{- if .enabled }}
{{- if not .hosts }}
{{- fail "ingress.hosts is empty while ingress.enabled is true: name a host, or set enabled to false" }}
{{- end }}
{{- if and .tls.existing_secret .tls.cluster_issuer }}
{{- fail "ingress.tls.cluster_issuer is given beside ingress.tls.existing_secret: remove one of them" }}
{{- end }}
{{- if not (or $.Values.security.enable_tls .tls.existing_secret .tls.cluster_issuer) }}
{{- fail "ingress.tls.existing_secret is empty while security.enable_tls is false: name a Secret or a cluster_issuer, or set enable_tls to true" }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.gateway.enabled (not .Values.gateway.parent_refs) }}
{{- fail "gateway.parent_refs is empty while gateway.enabled is true: name a Gateway, or set enabled to false" }}
{{- end }}
{{- with .Values.monitoring.alertmanager.resources }}
{{- include "jarvis.validateRequests" (dict "requests" .requests "limits" .limits "above" "monitoring.alertmanager.resources.requests" "below" "monitoring.alertmanager.resources.limits") }}
{{- end }}
{{- include "jarvis.validateNotifications" . }}
{{- include "jarvis.validateSecurity" . }}
{{- $monitoring := .Values.monitoring }}
{{- if and (include "jarvis.grafanaEnabled" .) (not $monitoring.prometheus_enabled) }}
{{- fail "monitoring.grafana_enabled is true while monitoring.prometheus_enabled is false, so that it would have nothing to show: turn both on or off, or set monitoring.stack to existing" }}
{{- end }}
{{- include "jarvis.validateRequests" (dict "requests" $monitoring.grafana.resources.requests "limits" $monitoring.grafana.resources.limits "above" "monitoring.grafana.resources.requests" "below" "monitoring.grafana.resources.limits") }}
{{- /* Helm lets dots and a digit at the start through, Services do not. */}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" .Release.Name) }}
{{- fail (printf "the release name %s cannot begin the name of a Service: begin with a letter, and use letters, digits and - only" .Release.Name) }}
{{- end }}
{{- /* A StatefulSet's pods carry its name and a hash in a label of at most 63 characters. */}}
{{- if gt (len .Release.Name) 47 }}
{{- fail (printf "the release name %s has %d characters: at most 47 leave room for the names made of it" .Release.Name (len .Release.Name)) }}
{{- end }}
{{- end }}
