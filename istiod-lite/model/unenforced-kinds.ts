/** Kinds of Istio that nothing here carries out. */

/** By `Kind.group`: what it would do, and what to use instead. */
export const whyUnenforced: Readonly<Record<string, string>> = {
  'EnvoyFilter.networking.istio.io': 'it changes the configuration of Envoy, which is not here',
  'WasmPlugin.extensions.istio.io': 'it extends Envoy, which is not here',
  'TrafficExtension.extensions.istio.io': 'it extends Envoy, which is not here',
  'Sidecar.networking.istio.io': 'it configures sidecars, and pods of the mesh have none',
  'ProxyConfig.networking.istio.io': 'it configures sidecars and Envoy gateways, which are not here',
  'Gateway.networking.istio.io': 'it is for Istio’s ingress gateways: use the Gateway API',
  'WorkloadGroup.networking.istio.io': 'hosts are enrolled by WorkloadEntries',
};
