/** What `istioctl proxy-status` asks for over xDS: `istio.io/debug/syncz`, one ClientConfig for each connected proxy. */
import { VERSION } from '../../common/base/version.ts';
import { ClientConfig, type ControlPlane } from '../../common/codec/gen/discovery.ts';
import type { Any } from '../../common/codec/gen/google/protobuf/any.ts';
import type { SubscriptionStatus } from './delta-stream.ts';
import type { SyncRow } from './proxies.ts';

const SYNCZ_TYPE = 'istio.io/debug/syncz';
const CLIENT_CONFIG_TYPE = 'type.googleapis.com/envoy.service.status.v3.ClientConfig';
// envoy.service.status.v3.ConfigStatus
const [SYNCED, NOT_SENT, STALE, ERROR] = [1, 2, 3, 4];

/** A type that is no store: what it is when somebody asks, and who says so. */
export interface DebugType {
  resources(): readonly Any[];
  readonly controlPlane: ControlPlane;
}

/**
 * By type URL.
 * @param pod the name of this replica, which istioctl shows beside each proxy (Istio, pilot/pkg/xds/xdsgen.go)
 */
export function debugTypes(rows: () => readonly SyncRow[], pod: string): ReadonlyMap<string, DebugType> {
  const controlPlane = { identifier: JSON.stringify({ Component: 'istiod', ID: pod, Info: { version: VERSION } }) };
  return new Map([[SYNCZ_TYPE, { resources: () => rows().map(clientConfig), controlPlane }]]);
}

function clientConfig({ proxy: id, namespace, istio_version: version, cluster_id: clusterId, resources }: SyncRow): Any {
  const message: ClientConfig = {
    node: {
      id,
      cluster: '',
      buildVersion: '',
      metadata: { NAME: id, NAMESPACE: namespace, CLUSTER_ID: clusterId, ISTIO_VERSION: version },
    },
    genericXdsConfigs: Object.entries(resources).map(([typeUrl, status]) => ({
      typeUrl,
      configStatus: statusOf(status),
      lastUpdated: status.sentTime === '' ? undefined : new Date(status.sentTime),
      errorState: status.lastError === '' ? undefined : { details: status.lastError },
    })),
  };
  return { typeUrl: CLIENT_CONFIG_TYPE, value: ClientConfig.encode(message).finish() };
}

function statusOf({ sent, acked, lastError }: SubscriptionStatus): number {
  if (lastError !== '') return ERROR;
  if (sent === '') return NOT_SENT;
  return sent === acked ? SYNCED : STALE;
}
