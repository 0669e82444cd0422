/** What `istioctl proxy-status` asks for over xDS: `istio.io/debug/syncz`, one ClientConfig for each connected proxy. */
import { ClientConfig } from '../../common/codec/gen/discovery.ts';
import type { Any } from '../../common/codec/gen/google/protobuf/any.ts';
import type { SubscriptionStatus } from './delta-stream.ts';
import type { SyncRow } from './proxies.ts';

export const SYNCZ_TYPE = 'istio.io/debug/syncz';
const CLIENT_CONFIG_TYPE = 'type.googleapis.com/envoy.service.status.v3.ClientConfig';
// envoy.service.status.v3.ConfigStatus
const [SYNCED, NOT_SENT, STALE, ERROR] = [1, 2, 3, 4];

/** By type URL. */
export const debugTypes = (rows: () => readonly SyncRow[]): ReadonlyMap<string, () => readonly Any[]> =>
  new Map([[SYNCZ_TYPE, () => rows().map(clientConfig)]]);

function clientConfig({ proxy, node_id: id, namespace, istio_version: version, cluster_id: clusterId, resources }: SyncRow): Any {
  const message: ClientConfig = {
    node: {
      id,
      cluster: '',
      buildVersion: '',
      metadata: { NAME: proxy, NAMESPACE: namespace, CLUSTER_ID: clusterId, ISTIO_VERSION: version },
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
