{{/*
Whether the hook that makes Secrets claims the volume, as text: "true" or nothing. Helm waits until a claim is bound, and one
of a class that waits for its first consumer is bound by the first backup: an install with --wait would wait for that.
*/}}
{{- define "jarvis.claimsBackupVolume" -}}
{{- if and .Values.security.enable_rbac .Values.backup.enabled (eq .Values.backup.destination "volume") }}true{{ end }}
{{- end }}

{{- define "jarvis.backupVolumeArgs" -}}
- volume
- --namespace={{ .Release.Namespace }}
- --name={{ include "jarvis.backup" . }}
- --release={{ .Release.Name }}
- --component=backup
- --size={{ .Values.backup.volume.size }}
- --storage-class={{ index .Values.storage_classes .Values.backup.volume.storage_class }}
{{- end }}

{{/*
A pod's specification. Takes {root, action}: `take` or `verify`.

Every action of `backup` takes these arguments: docs/backup.md replaces `take` by another to make a job of it.
*/}}
{{- define "jarvis.backupPod" -}}
{{- $root := .root -}}
restartPolicy: Never
serviceAccountName: {{ include "jarvis.backup" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- include "jarvis.podSecurity" $root | nindent 0 }}
containers:
  - name: backup
    image: {{ include "jarvis.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pull_policy }}
    args:
      - backup
      - {{ .action }}
      {{- if eq $root.Values.backup.destination "s3" }}
      {{- with $root.Values.backup.s3 }}
      - --destination=s3://{{ .bucket }}/{{ .prefix }}
      - --s3-endpoint={{ .endpoint }}
      - --s3-region={{ .region }}
      - --s3-credentials=/etc/jarvis-s3
      {{- end }}
      {{- else }}
      - --destination=/var/backups
      {{- end }}
      - --config=/etc/jarvis/config.json
      - --cluster-name-file=/etc/jarvis/cluster-name
      - --secret-file=/etc/jarvis-secret/cluster-secret
      {{- range until (int $root.Values.infrastructure.node_count) }}
      - --peer={{ include "jarvis.crdt" $root }}-{{ . }}.{{ include "jarvis.peers" $root }}.{{ $root.Release.Namespace }}.svc:8001
      {{- end }}
      - --include=/etc/jarvis
      - --include=/etc/jarvis-values
      {{- if $root.Values.plugins }}
      - --include=/etc/jarvis-plugins
      {{- end }}
      - --chart-version={{ $root.Chart.Version }}
      - --keep-hourly={{ $root.Values.backup.retention.hourly }}
      - --keep-daily={{ $root.Values.backup.retention.daily }}
      - --keep-weekly={{ $root.Values.backup.retention.weekly }}
      {{- if $root.Values.backup.verify }}
      - --verify
      {{- end }}
      {{- if eq .action "verify" }}
      - --none-is-fine
      {{- end }}
      {{- if $root.Values.security.enable_tls }}
      {{- include "jarvis.tlsArgs" $root | nindent 6 }}
      {{- end }}
      {{- if $root.Values.security.encryption_enabled }}
      - --encryption-key-file=/etc/jarvis-backup-key
      {{- end }}
    {{- include "jarvis.containerSecurity" $root | nindent 4 }}
    # Files are made and read in memory, of 32 MiB each; decision 25 has the figures.
    resources:
      requests: {cpu: 50m, memory: 128Mi, ephemeral-storage: 16Mi}
      limits: {cpu: "1", memory: 512Mi, ephemeral-storage: 64Mi}
    volumeMounts:
      {{- if eq $root.Values.backup.destination "s3" }}
      - name: s3
        mountPath: /etc/jarvis-s3
        readOnly: true
      {{- else }}
      - name: backups
        mountPath: /var/backups
        {{- if eq .action "verify" }}
        readOnly: true
        {{- end }}
      {{- end }}
      {{- include "jarvis.sharedMounts" $root | nindent 6 }}
      - name: values
        mountPath: /etc/jarvis-values
        readOnly: true
      {{- if $root.Values.plugins }}
      - name: plugins
        mountPath: /etc/jarvis-plugins
        readOnly: true
      {{- end }}
      {{- if $root.Values.security.enable_tls }}
      {{- include "jarvis.tlsMount" $root | nindent 6 }}
      {{- end }}
      {{- if $root.Values.security.encryption_enabled }}
      - name: backup-key
        mountPath: /etc/jarvis-backup-key
        readOnly: true
      {{- end }}
volumes:
  {{- if eq $root.Values.backup.destination "s3" }}
  - name: s3
    secret:
      secretName: {{ $root.Values.backup.s3.existing_secret | quote }}
      defaultMode: 0440
  {{- else }}
  - name: backups
    persistentVolumeClaim:
      claimName: {{ include "jarvis.backup" $root }}
  {{- end }}
  {{- include "jarvis.sharedVolumes" $root | nindent 2 }}
  - name: values
    configMap:
      name: {{ include "jarvis.backup" $root }}
  {{- if $root.Values.plugins }}
  - name: plugins
    configMap:
      name: {{ include "jarvis.plugins" $root }}
  {{- end }}
  {{- if $root.Values.security.enable_tls }}
  {{- include "jarvis.tlsVolume" (include "jarvis.operatorTls" $root) | nindent 2 }}
  {{- end }}
  {{- if $root.Values.security.encryption_enabled }}
  - name: backup-key
    secret:
      secretName: {{ include "jarvis.backupKey" $root | quote }}
      defaultMode: 0440
  {{- end }}
{{- end }}

{{/*
The values of the release, with which another one is installed: JSON, of which Helm 3 and 4 write the same. Code of plugins is
in their ConfigMap.
*/}}
{{- define "jarvis.backupValues" -}}
{{- $plugins := list }}
{{- range .Values.plugins }}
{{- $plugins = append $plugins (omit . "source") }}
{{- end }}
{{- include "jarvis.withoutNull" (mergeOverwrite (deepCopy .Values) (dict "plugins" $plugins)) | fromJson | toPrettyJson }}
{{- end }}

{{/* Takes a map; returns it as JSON without values that are null, which Helm 4 leaves out and Helm 3 keeps. */}}
{{- define "jarvis.withoutNull" -}}
{{- $kept := dict }}
{{- range $name, $value := . }}
{{- if kindIs "map" $value }}
{{- $_ := set $kept $name (include "jarvis.withoutNull" $value | fromJson) }}
{{- else if not (kindIs "invalid" $value) }}
{{- $_ := set $kept $name $value }}
{{- end }}
{{- end }}
{{- toJson $kept }}
{{- end }}
