/** Where the waypoint's picture of the mesh comes from: a control plane over delta xDS, or files. */
import { readFile } from 'node:fs/promises';
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { GrpcEndpoint, TokenSource } from '../../common/client/grpc-endpoint.ts';
import { XdsClient } from '../../common/client/xds-client.ts';
import type { Node } from '../../common/codec/gen/discovery.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import { staticResources } from '../../common/state/static-config.ts';
import { ADDRESS_TYPE, type MeshStateWriter, type StatePush } from '../../common/state/writer.ts';
import { metrics } from '../metrics.ts';
import type { WaypointSettings } from '../settings.ts';
import { WaypointResources, waypointTypeUrls } from './resources.ts';
import { staticRoutes } from './static-routes.ts';

export interface ControlPlaneOptions {
  readonly settings: WaypointSettings;
  readonly endpoint: GrpcEndpoint;
  readonly token: TokenSource;
  readonly writer: MeshStateWriter;
  readonly resources: WaypointResources;
  readonly series: SeriesWriter;
  readonly clock: Clock;
  readonly log: Log;
  /** Everything that we asked for has come once. */
  onSynced(): void;
}

/** How this waypoint introduces itself. */
export function xdsNode(settings: WaypointSettings): Node {
  const { podName, podNamespace, instanceIp, nodeName, metadata, gatewayName, serviceAccount } = settings;
  return {
    id: `waypoint~${instanceIp}~${podName}.${podNamespace}~${podNamespace}.svc.cluster.local`,
    cluster: '',
    buildVersion: '',
    metadata: {
      NAME: podName,
      NAMESPACE: podNamespace,
      SERVICE_ACCOUNT: serviceAccount,
      INSTANCE_IPS: instanceIp,
      NODE_NAME: nodeName,
      CLUSTER_ID: settings.clusterId,
      GATEWAY_NAME: gatewayName,
      ...metadata,
    },
  };
}

export function controlPlane({
  settings,
  endpoint,
  token,
  writer,
  resources,
  series,
  clock,
  log,
  onSynced,
}: ControlPlaneOptions): XdsClient {
  return new XdsClient({
    endpoint,
    token,
    clusterId: settings.clusterId,
    node: xdsNode(settings),
    typeUrls: [ADDRESS_TYPE, ...waypointTypeUrls],
    clock,
    log,
    versions: (typeUrl) => (WaypointResources.isKnown(typeUrl) ? resources : writer).versions(typeUrl),
    apply: (push) => {
      const applied = applyTo(writer, resources, push);
      if (applied.rejected.length > 0) series.add(series.slot(metrics.rejected, [push.typeUrl]), applied.rejected.length);
      return applied;
    },
    onMessage: (typeUrl, bytes) => {
      series.add(series.slot(metrics.xdsMessages, [typeUrl]), 1);
      series.add(series.slot(metrics.xdsBytes, [typeUrl]), bytes);
    },
    onTermination: (reason) => series.add(series.slot(metrics.xdsTerminations, [reason]), 1),
    onSynced,
  });
}

const applyTo = (writer: MeshStateWriter, resources: WaypointResources, push: StatePush): ReturnType<MeshStateWriter['apply']> =>
  (WaypointResources.isKnown(push.typeUrl) ? resources : writer).apply(push);

/** Reads LOCAL_XDS_PATH and LOCAL_ROUTES_PATH once. @throws {Error} naming what is wrong in them */
export async function applyStaticConfig(settings: WaypointSettings, writer: MeshStateWriter, resources: WaypointResources): Promise<void> {
  const { localXdsPath, localRoutesPath } = settings;
  const pushes = localXdsPath === undefined ? [] : staticResources(await readFile(localXdsPath, 'utf8'));
  const routes = localRoutesPath === undefined ? [] : staticRoutes(await readFile(localRoutesPath, 'utf8'));
  for (const push of [...pushes, ...routes]) {
    const [first] = applyTo(writer, resources, push).rejected;
    if (first) throw new Error(`static configuration: ${first.name}: ${first.reason}`);
  }
}
