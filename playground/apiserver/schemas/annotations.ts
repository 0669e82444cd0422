/**
 * What type declarations do not say about the built-in kinds: which lists are merged by which keys, which lists and maps are replaced as a
 * whole (server-side apply), merge keys of strategic merge patches, and default values. From the Kubernetes and Gateway API references.
 */

/** `Type.field keys`: lists whose elements are told apart by these fields. Strategic merge uses the first, unless `MERGE_KEYS` says otherwise. */
export const MAP_LISTS = `
V1PodSpec.containers name
V1PodSpec.initContainers name
V1PodSpec.ephemeralContainers name
V1PodSpec.volumes name
V1PodSpec.imagePullSecrets name
V1PodSpec.hostAliases ip
V1PodSpec.topologySpreadConstraints topologyKey whenUnsatisfiable
V1PodSpec.schedulingGates name
V1PodSpec.readinessGates conditionType
V1PodSpec.resourceClaims name
V1Container.ports containerPort protocol
V1Container.env name
V1Container.volumeMounts mountPath
V1Container.volumeDevices devicePath
V1EphemeralContainer.ports containerPort protocol
V1EphemeralContainer.env name
V1EphemeralContainer.volumeMounts mountPath
V1EphemeralContainer.volumeDevices devicePath
V1PodStatus.conditions type
V1PodStatus.podIPs ip
V1PodStatus.hostIPs ip
V1ServiceSpec.ports port protocol
V1ServiceStatus.conditions type
V1LoadBalancerStatus.ingress ip
V1ServiceAccount.secrets name
V1NamespaceStatus.conditions type
V1NodeStatus.addresses type
V1NodeStatus.conditions type
V1ReplicationControllerStatus.conditions type
V1DeploymentStatus.conditions type
V1ReplicaSetStatus.conditions type
V1DaemonSetStatus.conditions type
V1StatefulSetStatus.conditions type
V1PodDisruptionBudgetStatus.conditions type
V2HorizontalPodAutoscalerStatus.conditions type
V1CustomResourceDefinitionStatus.conditions type
V1ValidatingWebhookConfiguration.webhooks name
V1MutatingWebhookConfiguration.webhooks name
V1ValidatingWebhook.matchConditions name
V1MutatingWebhook.matchConditions name
V1ObjectMeta.ownerReferences uid
gateway.networking.k8s.io/v1/GatewaySpec.listeners name
gateway.networking.k8s.io/v1/GatewayStatus.listeners name
gateway.networking.k8s.io/v1/GatewayStatus.conditions type
gateway.networking.k8s.io/v1/ListenerStatus.conditions type
gateway.networking.k8s.io/v1/ListenerSetSpec.listeners name
gateway.networking.k8s.io/v1/ListenerSetStatus.listeners name
gateway.networking.k8s.io/v1/ListenerSetStatus.conditions type
gateway.networking.k8s.io/v1/ListenerEntryStatus.conditions type
gateway.networking.k8s.io/v1/GatewayClassStatus.conditions type
gateway.networking.k8s.io/v1/GatewayClassStatus.supportedFeatures name
gateway.networking.k8s.io/v1/RouteParentStatus.conditions type
gateway.networking.k8s.io/v1/PolicyAncestorStatus.conditions type
gateway.networking.k8s.io/v1/HTTPHeaderFilter.set name
gateway.networking.k8s.io/v1/HTTPHeaderFilter.add name
gateway.networking.k8s.io/v1/HTTPRouteMatch.headers name
gateway.networking.k8s.io/v1/HTTPRouteMatch.queryParams name
gateway.networking.k8s.io/v1/GRPCRouteMatch.headers name
gateway.networking.k8s.io/v1/FrontendTLSConfig.perPort port
gateway.networking.x-k8s.io/v1alpha1/MeshStatus.conditions type
gateway.networking.x-k8s.io/v1alpha1/MeshStatus.supportedFeatures name
networking.istio.io/v1/ServiceEntry.spec.ports name
networking.istio.io/v1beta1/ServiceEntry.spec.ports name
networking.istio.io/v1alpha3/ServiceEntry.spec.ports name
extensions.istio.io/v1alpha1/WasmPlugin.spec.vmConfig.env name`;

/** Strategic merge keys where they are not the first key of the list, or where server-side apply treats the list as atomic. */
export const MERGE_KEYS = `
V1PodSpec.tolerations -
V1NodeSpec.taints key
V1ServiceAccount.imagePullSecrets name
V1VolumeProjection.sources -
V1ClusterRoleBinding.subjects -`;

/** Lists of scalars merged as sets. */
export const SET_LISTS = `V1ObjectMeta.finalizers V1NodeSpec.podCIDRs V1NamespaceSpec.finalizers
gateway.networking.k8s.io/v1/HTTPHeaderFilter.remove gateway.networking.k8s.io/v1/HTTPCORSFilter.allowOrigins
gateway.networking.k8s.io/v1/HTTPCORSFilter.allowMethods gateway.networking.k8s.io/v1/HTTPCORSFilter.allowHeaders
gateway.networking.k8s.io/v1/HTTPCORSFilter.exposeHeaders`;

/** Objects that have one owner as a whole. */
export const ATOMIC_MAPS = `V1LabelSelector V1NodeSelector V1NodeSelectorTerm V1ObjectReference V1LocalObjectReference V1SecretKeySelector
V1ConfigMapKeySelector V1ObjectFieldSelector V1ResourceFieldSelector V1TypedLocalObjectReference V1TypedObjectReference V1SecretReference
V1OwnerReference V1RoleRef V1Subject V1CrossVersionObjectReference V1ScopeSelector V1TopologySelectorTerm V1ServiceSpec.selector
V1PodSpec.nodeSelector V1ReplicationControllerSpec.selector V1EndpointSlice.endpoints.deprecatedTopology`;

/** Patched with `$retainKeys`: only the fields of the patch stay. */
export const RETAIN_KEYS = 'V1PodSpec.volumes V1DeploymentSpec.strategy';

/** `Type.field pattern`: patterns that the packages' validators lack. */
export const PATTERNS = String.raw`
gateway.networking.k8s.io/v1/HTTPHeader.value ^[!-~]+([\t ]?[!-~]+)*$`;

/** Values that are in Istio and not yet in the package's sets. */
export const NEWER_VALUES: ReadonlySet<unknown> = new Set(['MERGE_AND_REPLACE_LIST']);

/** `Type.field value`, the value in JSON. */
export const DEFAULTS = `
V1PodSpec.restartPolicy "Always"
V1PodSpec.dnsPolicy "ClusterFirst"
V1PodSpec.schedulerName "default-scheduler"
V1PodSpec.terminationGracePeriodSeconds 30
V1PodSpec.securityContext {}
V1Container.terminationMessagePath "/dev/termination-log"
V1Container.terminationMessagePolicy "File"
V1Container.resources {}
V1ContainerPort.protocol "TCP"
V1Probe.timeoutSeconds 1
V1Probe.periodSeconds 10
V1Probe.successThreshold 1
V1Probe.failureThreshold 3
V1HTTPGetAction.scheme "HTTP"
V1HTTPGetAction.path "/"
V1ObjectFieldSelector.apiVersion "v1"
V1SecretVolumeSource.defaultMode 420
V1ConfigMapVolumeSource.defaultMode 420
V1ProjectedVolumeSource.defaultMode 420
V1DownwardAPIVolumeSource.defaultMode 420
V1HostPathVolumeSource.type ""
V1ServiceAccountTokenProjection.expirationSeconds 3600
V1ServiceSpec.type "ClusterIP"
V1ServiceSpec.sessionAffinity "None"
V1ServicePort.protocol "TCP"
CoreV1EndpointPort.protocol "TCP"
V1DeploymentSpec.replicas 1
V1DeploymentSpec.revisionHistoryLimit 10
V1DeploymentSpec.progressDeadlineSeconds 600
V1DeploymentSpec.strategy {"type":"RollingUpdate"}
V1DeploymentStrategy.type "RollingUpdate"
V1ReplicaSetSpec.replicas 1
V1ReplicationControllerSpec.replicas 1
V1DaemonSetSpec.revisionHistoryLimit 10
V1DaemonSetSpec.updateStrategy {"type":"RollingUpdate","rollingUpdate":{"maxSurge":0,"maxUnavailable":1}}
V1DaemonSetUpdateStrategy.type "RollingUpdate"
V1StatefulSetSpec.replicas 1
V1StatefulSetSpec.revisionHistoryLimit 10
V1StatefulSetSpec.podManagementPolicy "OrderedReady"
V1StatefulSetSpec.updateStrategy {"type":"RollingUpdate","rollingUpdate":{"partition":0}}
V1StatefulSetUpdateStrategy.type "RollingUpdate"
V1JobSpec.backoffLimit 6
V1JobSpec.parallelism 1
V1JobSpec.completions 1
V1Secret.type "Opaque"
V1NamespaceSpec.finalizers ["kubernetes"]
V1ValidatingWebhook.failurePolicy "Fail"
V1ValidatingWebhook.matchPolicy "Equivalent"
V1ValidatingWebhook.timeoutSeconds 10
V1ValidatingWebhook.namespaceSelector {}
V1ValidatingWebhook.objectSelector {}
V1MutatingWebhook.failurePolicy "Fail"
V1MutatingWebhook.matchPolicy "Equivalent"
V1MutatingWebhook.timeoutSeconds 10
V1MutatingWebhook.namespaceSelector {}
V1MutatingWebhook.objectSelector {}
V1MutatingWebhook.reinvocationPolicy "Never"
V1RuleWithOperations.scope "*"
AdmissionregistrationV1ServiceReference.port 443
V1RoleRef.apiGroup "rbac.authorization.k8s.io"
gateway.networking.k8s.io/v1/ParentReference.group "gateway.networking.k8s.io"
gateway.networking.k8s.io/v1/ParentReference.kind "Gateway"
gateway.networking.k8s.io/v1/HTTPBackendRef.group ""
gateway.networking.k8s.io/v1/HTTPBackendRef.kind "Service"
gateway.networking.k8s.io/v1/HTTPBackendRef.weight 1
gateway.networking.k8s.io/v1/GRPCBackendRef.group ""
gateway.networking.k8s.io/v1/GRPCBackendRef.kind "Service"
gateway.networking.k8s.io/v1/GRPCBackendRef.weight 1
gateway.networking.k8s.io/v1/BackendRef.group ""
gateway.networking.k8s.io/v1/BackendRef.kind "Service"
gateway.networking.k8s.io/v1/BackendRef.weight 1
gateway.networking.k8s.io/v1/BackendObjectReference.group ""
gateway.networking.k8s.io/v1/BackendObjectReference.kind "Service"
gateway.networking.k8s.io/v1/SecretObjectReference.group ""
gateway.networking.k8s.io/v1/SecretObjectReference.kind "Secret"
gateway.networking.k8s.io/v1/HTTPRouteSpec.rules [{"matches":[{"path":{"type":"PathPrefix","value":"/"}}]}]
gateway.networking.k8s.io/v1/HTTPRouteRule.matches [{"path":{"type":"PathPrefix","value":"/"}}]
gateway.networking.k8s.io/v1/HTTPRouteMatch.path {"type":"PathPrefix","value":"/"}
gateway.networking.k8s.io/v1/HTTPPathMatch.type "PathPrefix"
gateway.networking.k8s.io/v1/HTTPPathMatch.value "/"
gateway.networking.k8s.io/v1/HTTPHeaderMatch.type "Exact"
gateway.networking.k8s.io/v1/HTTPQueryParamMatch.type "Exact"
gateway.networking.k8s.io/v1/GRPCHeaderMatch.type "Exact"
gateway.networking.k8s.io/v1/GRPCMethodMatch.type "Exact"
gateway.networking.k8s.io/v1/HTTPRequestRedirectFilter.statusCode 302
gateway.networking.k8s.io/v1/Listener.allowedRoutes {"namespaces":{"from":"Same"}}
gateway.networking.k8s.io/v1/ListenerEntry.allowedRoutes {"namespaces":{"from":"Same"}}
gateway.networking.k8s.io/v1/AllowedRoutes.namespaces {"from":"Same"}
gateway.networking.k8s.io/v1/RouteNamespaces.from "Same"
gateway.networking.k8s.io/v1/RouteGroupKind.group "gateway.networking.k8s.io"
gateway.networking.k8s.io/v1/ListenerTLSConfig.mode "Terminate"
gateway.networking.k8s.io/v1/GatewaySpecAddress.type "IPAddress"
gateway.networking.k8s.io/v1/GatewayStatusAddress.type "IPAddress"
gateway.networking.k8s.io/v1/ParentGatewayReference.group "gateway.networking.k8s.io"
gateway.networking.k8s.io/v1/ParentGatewayReference.kind "Gateway"
gateway.networking.k8s.io/v1/Fraction.denominator 100
gateway.networking.k8s.io/v1/HTTPCORSFilter.maxAge 5
gateway.networking.k8s.io/v1/SessionPersistence.type "Cookie"
gateway.networking.k8s.io/v1/AllowedListeners.namespaces {"from":"None"}
gateway.networking.k8s.io/v1/ListenerNamespaces.from "None"
gateway.networking.k8s.io/v1/FrontendTLSValidation.mode "AllowValidOnly"
gateway.networking.k8s.io/v1/GatewayClass.status {"conditions":[${pending('Accepted')}]}
gateway.networking.k8s.io/v1beta1/GatewayClass.status {"conditions":[${pending('Accepted')}]}
gateway.networking.k8s.io/v1/Gateway.status {"conditions":[${pending('Accepted')},${pending('Programmed')}]}
gateway.networking.k8s.io/v1beta1/Gateway.status {"conditions":[${pending('Accepted')},${pending('Programmed')}]}
gateway.networking.k8s.io/v1/ListenerSet.status {"conditions":[${pending('Accepted')},${pending('Programmed')}]}
gateway.networking.x-k8s.io/v1alpha1/XMesh.status {"conditions":[${pending('Accepted')}]}`;

/** What a condition is until a controller takes the object. */
function pending(type: string): string {
  return `{"type":"${type}","status":"Unknown","reason":"Pending","message":"Waiting for controller","lastTransitionTime":"1970-01-01T00:00:00Z"}`;
}

/**
 * Fields that are in Istio and the Gateway API and not yet in the packages: `sibling field schema`, added wherever an object of theirs has
 * the sibling. Without them what a user wrote would be refused as unknown.
 */
export const NEWER_FIELDS = `
notIpBlocks trustDomains {"type":"array","items":{"type":"string"}}
notIpBlocks notTrustDomains {"type":"array","items":{"type":"string"}}
h2UpgradePolicy http2KeepAlive {"type":"object","properties":{"interval":{"type":"string"},"timeout":{"type":"string"}}}
localityLbSetting zoneAwareLbSetting {"x-kubernetes-preserve-unknown-fields":true}
localityLbSetting backendUtilization {"x-kubernetes-preserve-unknown-fields":true}
consecutive5xxErrors outlierDetectionHttpErrorCodes {"x-kubernetes-preserve-unknown-fields":true}
minRetryConcurrency budgetInterval {"type":"string"}
jwksUri presence {"type":"string","enum":["OPTIONAL","REQUIRED"]}
disableSpanReporting disableContextPropagation {"type":"boolean"}
derivePort prefixRewrite {"type":"string"}
cipherSuites ecdhCurves {"type":"array","items":{"type":"string"}}
cipherSuites insecureSkipVerify {"type":"boolean"}
sessionName cookie {"x-kubernetes-preserve-unknown-fields":true}
sessionName header {"x-kubernetes-preserve-unknown-fields":true}`;
