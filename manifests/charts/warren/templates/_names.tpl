{{/* Shared pieces: labels, images, what all pods have. */}}

{{/* Labels of every object. warren.dev/installation is how `meshctl upgrade` and `meshctl uninstall` find what an installation made. */}}
{{- define "warren.labels" -}}
app.kubernetes.io/name: {{ .app }}
app.kubernetes.io/part-of: warren
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
warren.dev/installation: {{ .root.Release.Namespace }}
{{- end }}

{{/* {root, name, image}: the whole reference where there is one, else HUB/NAME:TAG. */}}
{{- define "warren.image" -}}
{{- .image | default (printf "%s/%s:%s" .root.Values.image.hub .name (.root.Values.image.tag | default .root.Chart.AppVersion)) -}}
{{- end }}

{{- define "warren.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* A map of settings as a container's env. */}}
{{- define "warren.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{- define "warren.istiodAddress" -}}
{{- .Values.ztunnel.istiodAddress | default (printf "istiod.%s.svc:15012" .Release.Namespace) -}}
{{- end }}
