{{/*
Flows that recur in policies. A component's networkpolicy.yaml is

  {{- if .Values.security.network_policies }}
  # Name: who comes in; where it goes.
  {{ include "jarvis.policy" (dict "root" . "component" "name" "name" (include "jarvis.name" .)) }}
    policyTypes: [Ingress, Egress]
    ingress:
      {{- include "jarvis.fromComponents" (dict "root" . "components" (list "crdt") "port" "http") | nindent 4 }}
    egress:
      {{- include "jarvis.toComponent" (dict "root" . "component" "backend" "port" 8000) | nindent 4 }}
      {{- include "jarvis.dnsEgress" . | nindent 4 }}
  {{- end }}
*/}}

{{/* A policy up to its podSelector, which selects the component. Takes {root, component, name}. */}}
{{- define "jarvis.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .name }}
  labels:
    {{- include "jarvis.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "jarvis.selector" . | nindent 6 }}
{{- end }}

{{/* A rule of ingress: pods of any of the components reach the port, a name. Takes {root, components, port}. */}}
{{- define "jarvis.fromComponents" -}}
- ports: [{port: {{ .port }}}]
  from:
    {{- range .components }}
    - podSelector:
        matchLabels:
          {{- include "jarvis.selector" (dict "root" $.root "component" .) | nindent 10 }}
    {{- end }}
{{- end }}

{{/* A rule of egress to a component's port, a number. Takes {root, component, port}. */}}
{{- define "jarvis.toComponent" -}}
- ports: [{port: {{ .port }}}]
  to:
    - podSelector:
        matchLabels:
          {{- include "jarvis.selector" . | nindent 10 }}
{{- end }}

{{/*
The way to DNS, which is a pod of kube-system in one cluster, of another namespace in the next, and behind a cache on the node's
own network in a third: its ports, of which 5353 is that of OpenShift's pods.
*/}}
{{- define "jarvis.dnsEgress" -}}
- ports:
    {{- range list 53 5353 }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}

{{/* Peers of a rule: `infrastructure.vpc_cidr`, a network of each family. */}}
{{- define "jarvis.networkPeers" -}}
{{- range splitList "," .Values.infrastructure.vpc_cidr }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* The way to the Kubernetes API, whose address differs from cluster to cluster, unlike its ports. */}}
{{- define "jarvis.apiServerEgress" -}}
- ports: [{port: 443}, {port: 6443}]
{{- end }}

{{/* The way to the collector of traces, whose address only its name tells: its port. */}}
{{- define "jarvis.tracingEgress" -}}
{{- with .Values.tracing.endpoint }}{{ include "jarvis.urlEgress" . }}{{ end }}
{{- end }}

{{/* The way to whatever has a URL: its port. Takes the URL. */}}
{{- define "jarvis.urlEgress" -}}
{{- $url := urlParse . }}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) }}
- ports: [{port: {{ $port | default (ternary 443 80 (eq $url.scheme "https")) }}}]
{{- end }}
