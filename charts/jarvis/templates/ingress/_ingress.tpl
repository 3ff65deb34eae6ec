{{/* Namespaces whose pods bring clients of Ingress and Gateway, a JSON array. */}}
{{- define "jarvis.controllerNamespaces" -}}
{{- $namespaces := list }}
{{- with .Values.ingress }}
{{- if .enabled }}
{{- $usual := dict "contour" "projectcontour" "nginx" "ingress-nginx" "traefik" "traefik" "other" "" }}
{{- $namespaces = append $namespaces (.controller_namespace | default (get $usual .controller)) }}
{{- end }}
{{- end }}
{{- with .Values.gateway }}
{{- if .enabled }}
{{- $namespaces = append $namespaces .controller_namespace }}
{{- end }}
{{- end }}
{{- $namespaces | compact | uniq | toJson }}
{{- end }}

{{/* Hosts that the API's own certificate has to name, as it is the Ingress' too; a JSON array. */}}
{{- define "jarvis.ingressNames" -}}
{{- with .Values.ingress }}
{{- ternary .hosts list (and .enabled (not .tls.existing_secret) (not .tls.cluster_issuer)) | toJson }}
{{- end }}
{{- end }}

{{/*
What each controller has to be told: redirect HTTP, wait for change feeds, which never end, speak TLS to the backend and
trust its authority alone. Contour takes TLS from the Service's appProtocol, and cannot be told of an authority by an
Ingress; X-Accel-Buffering of the feeds keeps nginx from holding them back. YAML.
*/}}
{{- define "jarvis.ingressAnnotations" -}}
{{- $controller := .Values.ingress.controller }}
{{- with .Values.ingress.tls.cluster_issuer }}
cert-manager.io/cluster-issuer: {{ . | quote }}
{{- end }}
{{- if eq $controller "contour" }}
ingress.kubernetes.io/force-ssl-redirect: "true"
projectcontour.io/response-timeout: infinity
{{- else if eq $controller "nginx" }}
nginx.ingress.kubernetes.io/force-ssl-redirect: "true"
# What the API takes at most.
nginx.ingress.kubernetes.io/proxy-body-size: 8m
{{- if .Values.security.enable_tls }}
nginx.ingress.kubernetes.io/backend-protocol: HTTPS
nginx.ingress.kubernetes.io/proxy-ssl-name: {{ include "jarvis.backendHost" . }}
nginx.ingress.kubernetes.io/proxy-ssl-secret: {{ .Release.Namespace }}/{{ include "jarvis.apiTls" . }}
nginx.ingress.kubernetes.io/proxy-ssl-verify: "on"
{{- end }}
{{- else if eq $controller "traefik" }}
traefik.ingress.kubernetes.io/router.entrypoints: websecure
traefik.ingress.kubernetes.io/router.tls: "true"
{{- end }}
{{- end }}

{{/* The same for Traefik, which looks at the Service. YAML. */}}
{{- define "jarvis.ingressServiceAnnotations" -}}
{{- if eq (include "jarvis.hasServersTransport" .) "true" }}
traefik.ingress.kubernetes.io/service.serversscheme: https
traefik.ingress.kubernetes.io/service.serverstransport: {{ .Release.Namespace }}-{{ include "jarvis.backend" . }}@kubernetescrd
{{- end }}
{{- end }}

{{- define "jarvis.hasServersTransport" -}}
{{- with .Values.ingress }}{{ and .enabled (eq .controller "traefik") $.Values.security.enable_tls }}{{ end }}
{{- end }}

{{/* The name by which proxies verify the backend. */}}
{{- define "jarvis.backendHost" -}}{{ include "jarvis.backend" . }}.{{ .Release.Namespace }}.svc{{- end }}

{{/* Takes {usual, own}: annotations of the chart, in YAML, and of the user, which stand above them, empty ones too. YAML. */}}
{{- define "jarvis.annotations" -}}
{{- $annotations := .usual | fromYaml }}
{{- range $name, $value := .own }}
{{- $_ := set $annotations $name $value }}
{{- end }}
{{- with $annotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
