{{/*
A pod of `helm test` that runs a script of checks/, whose arguments are the API's URL, the authority's file and, if
`token` is true, the file of the first API key; "" for what there is not. Takes {root, check, token}.
*/}}
{{- define "jarvis.test" -}}
{{- $tls := .root.Values.security.enable_tls }}
{{- $token := and .token .root.Values.security.api_key_required }}
apiVersion: v1
kind: Pod
metadata:
  name: {{ .root.Release.Name }}-test-{{ .check }}
  labels:
    {{- include "jarvis.labels" (dict "root" .root "component" "test") | nindent 4 }}
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- include "jarvis.podSecurity" .root | nindent 2 }}
  containers:
    - name: {{ .check }}
      image: {{ include "jarvis.image" .root }}
      imagePullPolicy: {{ .root.Values.image.pull_policy }}
      command:
        - python3
        - -c
        - |
          {{- .root.Files.Get (printf "checks/%s.py" .check) | nindent 10 }}
        - {{ ternary "https" "http" $tls }}://{{ include "jarvis.backend" .root }}:8000
        - {{ ternary "/etc/jarvis-ca/ca.crt" "" $tls | quote }}
        {{- if .token }}
        - {{ ternary "/etc/jarvis-token/token" "" $token | quote }}
        {{- end }}
      {{- include "jarvis.containerSecurity" .root | nindent 6 }}
      resources:
        requests: {cpu: 50m, memory: 64Mi, ephemeral-storage: 16Mi}
        limits: {cpu: 500m, memory: 128Mi, ephemeral-storage: 64Mi}
      {{- if or $tls $token }}
      volumeMounts:
        {{- if $tls }}
        - name: trust
          mountPath: /etc/jarvis-ca
          readOnly: true
        {{- end }}
        {{- if $token }}
        - name: token
          mountPath: /etc/jarvis-token
          readOnly: true
        {{- end }}
      {{- end }}
  {{- if or $tls $token }}
  volumes:
    {{- if $tls }}
    {{- include "jarvis.trustVolume" .root | nindent 4 }}
    {{- end }}
    {{- if $token }}
    # Optional, so that without it the test says what is missing instead of waiting for it.
    - name: token
      secret:
        secretName: {{ include "jarvis.adminToken" .root | quote }}
        optional: true
        defaultMode: 0440
    {{- end }}
  {{- end }}
{{- end }}
