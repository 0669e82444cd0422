/**
 * What outlives this process (decision 9): the mesh's state in a folder of the node, certificates in memory. A start with a control plane
 * that answers does not notice; without one, what was kept is served until it is too old.
 */
import { readFileSync } from 'node:fs';
import { type Clock, sleep } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import type { MeshStateWriter } from '../../common/state/writer.ts';
import { metrics } from '../metrics.ts';
import type { ZtunnelSettings } from '../settings.ts';
import type { MeshSource } from './control-plane.ts';
import { KeptCertificates } from './kept-certificates.ts';
import { KeptState, type RestoredState } from './kept-state.ts';

/** Most control planes answer within this time; who starts beside one that does shall not act on what is old for a moment. */
const GRACE_MS = 2000;
/** Where istio-ca-root-cert is mounted. */
const MESH_ROOTS_FILE = './var/run/secrets/istio/root-cert.pem';
/** Pods that are here have been told about by then. */
const PRUNE_AFTER_MS = 300_000;

export interface KeptOptions {
  readonly settings: Pick<
    ZtunnelSettings,
    'stateDir' | 'stateMaxAgeMs' | 'keysDir' | 'clusterId' | 'nodeName' | 'network' | 'xds' | 'ca' | 'localXds' | 'localXdsPath'
  >;
  readonly writer: MeshStateWriter;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Kept {
  readonly state: KeptState | undefined;
  readonly certificates: KeptCertificates | undefined;
}

export function openKept({ settings, writer, clock, log }: KeptOptions): Kept {
  const { stateDir, keysDir, clusterId, nodeName: node, network, stateMaxAgeMs: maxAgeMs } = settings;
  const hasControlPlane = settings.xds !== undefined && settings.localXds === undefined && settings.localXdsPath === undefined;
  return {
    state:
      stateDir === undefined || !hasControlPlane
        ? undefined
        : KeptState.open({ folder: stateDir, maxAgeMs, owner: { clusterId, node, network, boot: bootId() }, writer, clock, log }),
    certificates:
      keysDir === undefined ? undefined : KeptCertificates.open({ folder: keysDir, clock, log, roots: meshRoots(settings.ca?.root) }),
  };
}

/**
 * Resolves when there is state to decide by: the control plane's, or after a short wait what was kept.
 * @param restored what was found at the start; undefined waits for the control plane
 */
export async function firstState(
  source: MeshSource,
  restored: RestoredState | undefined,
  { clock, log }: { clock: Clock; log: Log },
): Promise<void> {
  if (!restored) return source.synced;
  await Promise.race([source.synced, sleep(clock, GRACE_MS)]);
  if (source.isSynced) return;
  const { resources, ageMs } = restored;
  log.warn({ resources, ageSeconds: Math.round(ageMs / 1000) }, 'the control plane does not answer: serving from kept state');
  void source.synced.then(() => log.info('the control plane answers again'));
}

/** Forgets certificates of pods that went while no ztunnel was here, once the control plane has said which pods there are. */
export async function pruneCertificates(
  source: MeshSource,
  { certificates }: Kept,
  needed: () => Iterable<string>,
  clock: Clock,
): Promise<void> {
  if (!certificates) return;
  await source.synced;
  await sleep(clock, PRUNE_AFTER_MS);
  certificates.prune(new Set(needed()));
}

/** Brings the gauges up to date. */
export function measureKept(source: MeshSource, restored: RestoredState | undefined, { certificates }: Kept, series: SeriesWriter): void {
  series.set(series.slot(metrics.keptState, []), restored && !source.isSynced ? 1 : 0);
  series.set(series.slot(metrics.controlPlaneHeard, []), (source.heardAt ?? 0) / 1000);
  series.set(series.slot(metrics.keptCertificates, []), certificates?.size ?? 0);
}

/**
 * What istiod distributes into every namespace. Where the CA is asked with roots of another place, those are the CA's own, and need not be the
 * mesh's.
 */
function meshRoots(root: string | undefined): string | undefined {
  if (root !== MESH_ROOTS_FILE) return undefined;
  try {
    return readFileSync(root, 'utf8');
  } catch {
    // A ztunnel without it asks no CA; what it has kept is all that it has.
    return undefined;
  }
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}
