/** Where the mesh's state comes from: a control plane over delta xDS, or a static file; either way it ends up in the shared state. */
import { readFile } from 'node:fs/promises';
import { parseIp } from '../../common/base/address.ts';
import type { Clock, Timer } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { GrpcEndpoint, TokenSource } from '../../common/client/grpc-endpoint.ts';
import { XdsClient } from '../../common/client/xds-client.ts';
import type { Node } from '../../common/codec/gen/discovery.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import { staticResources } from '../../common/state/static-config.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type MeshStateWriter } from '../../common/state/writer.ts';
import { metrics } from '../metrics.ts';
import type { ZtunnelSettings } from '../settings.ts';
import type { KeptState } from './kept-state.ts';

/** Where the mesh's state comes from, whatever that is. */
export interface MeshSource {
  /** What logs call it. */
  readonly name: string;
  /** Resolves when everything that there is has come once. */
  readonly synced: Promise<void>;
  readonly isSynced: boolean;
  /** When the control plane was last heard of, milliseconds since 1970; undefined where it never was, or where there is none. */
  readonly heardAt: number | undefined;
  start(): void;
  /** On-demand discovery: a connection needs to know what has this name. */
  want(name: string): void;
  stop(): Promise<void>;
}

export interface MeshSourceOptions {
  readonly settings: ZtunnelSettings;
  readonly token: TokenSource;
  readonly writer: MeshStateWriter;
  readonly series: SeriesWriter;
  readonly clock: Clock;
  readonly log: Log;
  /** On-demand discovery: what there is of these is in the state. */
  onKnown?(names: readonly string[]): void;
  /** Remembers what comes. */
  readonly kept?: KeptState | undefined;
}

const CONFIRM_MS = 10_000;

/** How this node's proxy introduces itself (Istio's ztunnel, src/xds/client.rs). */
export function xdsNode(settings: ZtunnelSettings): Node {
  const { podName, podNamespace, instanceIp, nodeName, metadata } = settings;
  return {
    id: `ztunnel~${instanceIp}~${podName}.${podNamespace}~${podNamespace}.svc.cluster.local`,
    cluster: '',
    buildVersion: '',
    metadata: {
      NAME: podName,
      NAMESPACE: podNamespace,
      INSTANCE_IPS: instanceIp,
      NODE_NAME: nodeName,
      CLUSTER_ID: settings.clusterId,
      ...metadata,
    },
  };
}

/**
 * A static configuration where there is one, read by the time this resolves, and the control plane where there is one, from when it is started.
 * @throws {Error} naming what is wrong in the static configuration
 */
export async function meshSource(options: MeshSourceOptions): Promise<MeshSource> {
  const { settings, writer } = options;
  const own = await applyStaticConfig(settings, writer);
  if (settings.xds) return controlPlane(options, settings.xds, own);
  return {
    name: 'static',
    synced: Promise.resolve(),
    isSynced: true,
    heardAt: undefined,
    start: () => undefined,
    want: (name) => options.onKnown?.([name]),
    stop: () => Promise.resolve(),
  };
}

/** Names of the resources of a static configuration, by type. */
type StaticNames = ReadonlyMap<string, Set<string>>;

function controlPlane(
  { settings, token, writer, series, clock, log, kept, onKnown }: MeshSourceOptions,
  endpoint: GrpcEndpoint,
  own: StaticNames,
): MeshSource {
  const { promise: synced, resolve: onSynced } = Promise.withResolvers<void>();
  let heardAt: number | undefined;
  let timer: Timer | undefined;
  // While a stream is open, silence means that nothing has changed.
  const confirm = (): void => {
    if (client.status.at === 'streaming') {
      heardAt = clock.now();
      kept?.confirm();
    }
    timer = clock.after(CONFIRM_MS, confirm);
  };
  // What the static configuration says is not the control plane's, which would take back what it does not know.
  const versions = (typeUrl: string): Map<string, string> => {
    const held = writer.versions(typeUrl);
    for (const name of own.get(typeUrl) ?? []) held.delete(name);
    return held;
  };
  const view = writer.view();
  const asked = new Set<string>();
  const answered = new Set<string>();
  const heardOf = (names: readonly string[]): void => {
    const news = names.filter((name) => asked.delete(name));
    for (const name of news) answered.add(name);
    if (news.length > 0) onKnown?.(news);
  };
  const client = new XdsClient({
    endpoint,
    token,
    clusterId: settings.clusterId,
    node: xdsNode(settings),
    typeUrls: [ADDRESS_TYPE, AUTHORIZATION_TYPE],
    ...(settings.xdsOnDemand ? { onDemand: new Set([ADDRESS_TYPE]), onNamed: (_type, names) => heardOf(names) } : {}),
    clock,
    log,
    versions,
    apply(push) {
      const result = writer.apply(push);
      const ours = own.get(push.typeUrl);
      if (ours && ours.size > 0) for (const { name } of push.resources) ours.delete(name);
      kept?.applied(push, new Set(result.rejected.map(({ name }) => name)));
      return result;
    },
    onMessage: (typeUrl, bytes) => {
      heardAt = clock.now();
      series.add(series.slot(metrics.xdsMessages, [typeUrl]), 1);
      series.add(series.slot(metrics.xdsBytes, [typeUrl]), bytes);
    },
    onTermination: (reason) => series.add(series.slot(metrics.xdsTerminations, [reason]), 1),
    onSynced() {
      kept?.synced();
      onSynced();
    },
  });
  return {
    name: endpoint.target,
    synced,
    get isSynced() {
      return client.status.synced;
    },
    get heardAt() {
      return heardAt;
    },
    want(name) {
      // What has come unasked (a control plane sends what belongs together) is subscribed to already, and asking for it would get no answer.
      if (answered.has(name) || holds(view, name)) return onKnown?.([name]);
      if (asked.has(name)) return;
      asked.add(name);
      client.want(ADDRESS_TYPE, name);
    },
    start() {
      client.start();
      confirm();
    },
    async stop() {
      timer?.cancel();
      await client.stop();
      kept?.close();
    },
  };
}

/** @param name `NETWORK/IP` or `NAMESPACE/HOSTNAME`, as resources and their aliases are named */
function holds(view: MeshView, name: string): boolean {
  const slash = name.indexOf('/');
  const [first, second] = [name.slice(0, slash), name.slice(slash + 1)];
  const ip = parseIp(second);
  return ip === undefined
    ? view.serviceByKey(first, second) !== undefined || view.workloadByHostname(first, second) !== undefined
    : view.workloadByAddress(first, ip) !== undefined || view.servicesByAddress(first, ip).length > 0;
}

/** Reads LOCAL_XDS_PATH or LOCAL_XDS once. @throws {Error} naming what is wrong in it; nothing is applied then */
async function applyStaticConfig(settings: ZtunnelSettings, writer: MeshStateWriter): Promise<StaticNames> {
  const { localXdsPath, localXds } = settings;
  const yaml = localXdsPath === undefined ? localXds : await readFile(localXdsPath, 'utf8');
  const names = new Map<string, Set<string>>();
  if (yaml === undefined) return names;
  for (const push of staticResources(yaml)) {
    const { rejected } = writer.apply(push);
    const [first] = rejected;
    if (first) throw new Error(`static configuration: ${first.name}: ${first.reason}`);
    names.set(push.typeUrl, new Set([...(names.get(push.typeUrl) ?? []), ...push.resources.map(({ name }) => name)]));
  }
  return names;
}
