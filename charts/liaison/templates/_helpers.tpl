{{/*
What templates share: names, labels, image references, security contexts. A component is one of operator, sync, gateway, oms,
hub, store; it is the value of app.kubernetes.io/name, by which policies select.
*/}}

{{/* Refuses what the schema cannot say. */}}
{{- define "liaison.check" -}}
{{- if ne .Release.Namespace .Values.namespaces.system -}}
{{- fail (printf "the release must be installed in the namespace '%s' (namespaces.system), not in '%s': use --namespace %s" .Values.namespaces.system .Release.Namespace .Values.namespaces.system) -}}
{{- end -}}
{{- $n := .Values.namespaces -}}
{{- if lt (len (uniq (list $n.system $n.gateway $n.partners))) 3 -}}
{{- fail "namespaces.system, namespaces.gateway and namespaces.partners must be three different namespaces" -}}
{{- end -}}
{{- $endpoints := list -}}
{{- range .Values.gateway.shards -}}{{- $endpoints = concat $endpoints (compact (list .endpoint .secondEndpoint)) -}}{{- end -}}
{{- if ne (len $endpoints) (len (uniq $endpoints)) -}}
{{- fail "gateway.shards: each listener must have an endpoint of its own" -}}
{{- end -}}
{{- end -}}

{{- define "liaison.labels" -}}
app.kubernetes.io/part-of: liaison
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{/* liaison.componentLabels (dict "root" $ "name" "operator") */}}
{{- define "liaison.componentLabels" -}}
{{ include "liaison.selector" . }}
{{ include "liaison.labels" .root }}
{{- end -}}

{{- define "liaison.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{/*
A shard of the gateway: liaison.shardSelector (dict "root" $ "shard" "gateway-east"). Its instance is a name of its own, so that no
Deployment, Service or budget selects another's pods. That of `gateway` is the release's, as it was when there was no other.
*/}}
{{- define "liaison.shardSelector" -}}
app.kubernetes.io/name: gateway
app.kubernetes.io/instance: {{ if eq .shard "gateway" }}{{ .root.Release.Name }}{{ else }}{{ trunc 34 .root.Release.Name }}-{{ .shard }}{{ end }}
{{- end -}}

{{- define "liaison.shardLabels" -}}
{{ include "liaison.shardSelector" . }}
federation.csc-scc.gc.ca/gateway: {{ .shard }}
{{ include "liaison.labels" .root }}
{{- end -}}

{{/* All Secrets beside the gateway: what its shards share, and the WireGuard keys of each. */}}
{{- define "liaison.gatewaySecrets" -}}
{{- $names := list "gateway-tls" "gateway-client-tls" -}}
{{- range $name := keys .Values.gateway.shards | sortAlpha -}}{{- $names = append $names (printf "%s-wireguard" $name) -}}{{- end -}}
{{- join ", " (concat $names (list "gateway-psk-0" "gateway-psk-1" "gateway-psk-2" "gateway-psk-3")) -}}
{{- end -}}

{{/* The shards as the operator is told them: gateway=host:port,host:port gateway-east=host:port */}}
{{- define "liaison.gateways" -}}
{{- $all := list -}}
{{- range $name, $shard := .Values.gateway.shards -}}
{{- $all = append $all (printf "%s=%s%s" $name $shard.endpoint (empty $shard.secondEndpoint | ternary "" (printf ",%s" $shard.secondEndpoint))) -}}
{{- end -}}
{{- join " " $all -}}
{{- end -}}

{{/* liaison.image (dict "root" $ "name" "operator") */}}
{{- define "liaison.image" -}}
{{- $images := .root.Values.images -}}
{{- $image := index $images .name -}}
{{- $repository := $image.repository -}}
{{- with $images.registry -}}{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}{{- end -}}
{{- if $image.digest -}}{{ $repository }}@{{ $image.digest }}
{{- else -}}{{ $repository }}:{{ $image.tag | default .root.Chart.AppVersion }}{{- end -}}
{{- end -}}

{{- define "liaison.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What the restricted pod security standard asks of a pod. */}}
{{- define "liaison.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* And of a container. */}}
{{- define "liaison.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Probes of a program of ours: plain HTTP on port 8080, no record and no credential there. */}}
{{- define "liaison.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{- define "liaison.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a database is: liaison.databaseEnv (dict "prefix" "HUB" "secret" "liaison-hub" "user" "liaison_sync" "password" "/secrets/hub/password") */}}
{{- define "liaison.databaseEnv" -}}
- name: {{ .prefix }}_HOST
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: host}}
- name: {{ .prefix }}_PORT
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: port}}
- name: {{ .prefix }}_DBNAME
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: dbname}}
- {name: {{ .prefix }}_USER, value: {{ .user | quote }}}
- {name: {{ .prefix }}_PASSWORD_FILE, value: {{ .password | quote }}}
- {name: {{ .prefix }}_SSLMODE, value: verify-full}
- {name: {{ .prefix }}_SSLROOTCERT, value: /tls/ca.crt}
- {name: {{ .prefix }}_SSLCERT, value: /tls/tls.crt}
- {name: {{ .prefix }}_SSLKEY, value: /tls/tls.key}
{{- end -}}

{{- define "liaison.namespaceEnv" -}}
- {name: SYSTEM_NAMESPACE, value: {{ .Values.namespaces.system | quote }}}
- {name: GATEWAY_NAMESPACE, value: {{ .Values.namespaces.gateway | quote }}}
- {name: PARTNERS_NAMESPACE, value: {{ .Values.namespaces.partners | quote }}}
{{- end -}}

{{/* The password of a Secret that is there already, else a new one: liaison.password (dict "data" $data "key" "k") */}}
{{- define "liaison.password" -}}
{{- $old := index .data .key -}}
{{- if $old -}}{{ $old }}{{- else -}}{{ randAlphaNum 40 | b64enc }}{{- end -}}
{{- end -}}

{{/*
Objects of the whole cluster are named after Liaison; an installation in other namespaces (a test) has them under other names.
*/}}
{{- define "liaison.clusterSuffix" -}}
{{- if ne .Values.namespaces.partners "liaison-partners" -}}-{{ .Values.namespaces.partners }}{{- end -}}
{{- end -}}

{{/* What the migrate Job runs. */}}
{{- define "liaison.migratePod" -}}
serviceAccountName: liaison-oms
automountServiceAccountToken: false
restartPolicy: OnFailure
{{ include "liaison.pullSecrets" . }}
securityContext: {{- include "liaison.podSecurityContext" . | nindent 2 }}
containers:
  - name: migrate
    image: {{ include "liaison.image" (dict "root" . "name" "oms") }}
    imagePullPolicy: {{ .Values.images.pullPolicy }}
    args: [migrate]
    env:
      {{- include "liaison.databaseEnv" (dict "prefix" "HUB" "secret" .Values.databases.hub.secretName "user" "liaison_oms" "password" "/secrets/hub/oms-password") | nindent 6 }}
    resources: {{- toYaml .Values.oms.resources | nindent 6 }}
    securityContext: {{- include "liaison.securityContext" . | nindent 6 }}
    volumeMounts:
      - {name: tls, mountPath: /tls, readOnly: true}
      - {name: hub, mountPath: /secrets/hub, readOnly: true}
volumes:
  # Made by the operator when it starts.
  - name: tls
    secret: {secretName: oms-tls, defaultMode: 0440}
  - name: hub
    secret:
      secretName: {{ .Values.databases.hub.secretName }}
      defaultMode: 0440
      items: [{key: oms-password, path: oms-password}]
{{- end }}

{{/* TCP to some ports, anywhere or to the networks that are named: liaison.egress (dict "ports" $p "cidrs" $c) */}}
{{- define "liaison.egress" -}}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .cidrs }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  {{- end }}
{{- end }}

{{- define "liaison.databaseEgress" -}}
{{- if .root.Values.postgresql.enabled }}
- ports: [{port: 5432, protocol: TCP}]
  to:
    {{- range .names }}
    - podSelector:
        matchLabels: {app.kubernetes.io/name: {{ . }} }
    {{- end }}
{{- else }}
{{ include "liaison.egress" .root.Values.networkPolicy.databases }}
{{- end }}
{{- end }}

{{- define "liaison.fromOperator" -}}
- ports: [{port: 8080, protocol: TCP}]
  from:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ . }} }
      podSelector: {matchLabels: {app.kubernetes.io/name: operator}}
{{- end }}

{{- define "liaison.metricsIngress" -}}
- ports: [{port: 8080, protocol: TCP}]
  from:
    - namespaceSelector:
        matchLabels: {{- toYaml . | nindent 10 }}
{{- end }}
