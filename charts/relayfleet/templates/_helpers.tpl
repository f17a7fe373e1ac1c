{{- define "relayfleet.selector" -}}
app.kubernetes.io/name: relayfleet-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "relayfleet.labels" -}}
{{ include "relayfleet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: relayfleet
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "relayfleet.serviceAccount" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end }}

{{- /* Cluster-wide names carry the namespace: two releases may bear one name. */ -}}
{{- define "relayfleet.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace .Release.Name }}
{{- end }}

{{- /* What the operator does with each kind, and nothing more. It can delete neither a Secret nor a volume, unless
     rbac.deleteIdentities says so, and change no Secret that holds an identity: those are immutable. patch is for signing
     keys. */ -}}
{{- define "relayfleet.rules" -}}
- apiGroups: [relayfleet.io]
  resources: [relays]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [relayfleet.io]
  resources: [relayfamilies, relaysets]
  verbs: [get, list, watch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [relayfleet.io]
  resources: [relays/status, relayfamilies/status, relaysets/status]
  verbs: [patch]
# To own what it makes, where the API server enforces OwnerReferencesPermissionEnforcement.
- apiGroups: [relayfleet.io]
  resources: [relays/finalizers, relayfamilies/finalizers, relaysets/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create]
{{- if .Values.rbac.deleteIdentities }}
# For Relays with `deletionPolicy: Delete` and their fingerprint as confirmation.
- apiGroups: [""]
  resources: [secrets]
  verbs: [patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [delete]
{{- end }}
{{- if eq .Values.watchNamespace "" }}
# Addresses are the cluster's; what Pod Security enforces in a namespace decides who may use which.
- apiGroups: [relayfleet.io]
  resources: [addresspools]
  verbs: [get, list, watch]
- apiGroups: [relayfleet.io]
  resources: [addresspools/status]
  verbs: [update]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
# Whether a pod's node is gone or out of service: a proof that the pod's process has ended.
- apiGroups: [""]
  resources: [nodes]
  verbs: [get]
{{- end }}
# delete is asked by OwnerReferencesPermissionEnforcement where a new Relay takes over what an earlier one of its name left.
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
