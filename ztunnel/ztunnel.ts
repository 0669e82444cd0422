/**
 * A ztunnel, part by part in start order. The supervisor's thread talks to the control plane, the CA, the node agent and operators; data
 * workers carry connections over state and counters that they share with it.
 */
import { systemClock } from '../common/base/clock.ts';
import { errorMessage } from '../common/base/errors.ts';
import type { LogRoot } from '../common/base/log.ts';
import type { LogDirectives } from '../common/base/proxy-settings.ts';
import { tokenSource } from '../common/client/grpc-endpoint.ts';
import { raiseOpenFileLimit } from '../common/linux/limits.ts';
import { Netns } from '../common/linux/netns.ts';
import { SeqpacketSocket } from '../common/linux/seqpacket.ts';
import { closeFd } from '../common/linux/sockets.ts';
import { Readiness } from '../common/server/readiness.ts';
import { createSegment, SeriesReader, SeriesWriter } from '../common/server/shared-series.ts';
import { stateDump } from '../common/state/config-dump.ts';
import { MeshStateWriter } from '../common/state/writer.ts';
import { metricFamilies, metrics } from './metrics.ts';
import type { ZtunnelSettings } from './settings.ts';
import { certificateKeeper, Prefetch } from './supervisor/certificates.ts';
import { configDump } from './supervisor/config-dump.ts';
import { applyStaticConfig, controlPlane } from './supervisor/control-plane.ts';
import { serveEndpoints } from './supervisor/endpoints.ts';
import { nameserversOf } from './supervisor/nameservers.ts';
import { PodTable } from './supervisor/pods.ts';
import { spawnWorker } from './supervisor/spawn.ts';
import { WorkerFleet } from './supervisor/workers.ts';
import { ZdsClient } from './supervisor/zds-client.ts';

export interface Ztunnel {
  /** Stops accepting, lets connections end until the deadline, then stops everything. */
  drain(): Promise<void>;
}

const RESOLV_CONF = '/etc/resolv.conf';
const SUPERVISOR_SERIES = 1000;
const DEFAULT_TOKEN_FILE = './var/run/secrets/tokens/istio-token';

/** @param quit called when somebody asks for the end over the admin port, and with a problem where it cannot go on */
export async function startZtunnel(settings: ZtunnelSettings, logs: LogRoot, quit: (problem?: string) => void): Promise<Ztunnel> {
  const { log } = logs;
  const clock = systemClock;
  const openFiles = raiseOpenFileLimit();
  let levels: LogDirectives = settings.log;

  // Counters: the supervisor writes a segment of its own, as each worker does.
  const reader = new SeriesReader(metricFamilies);
  const segment = createSegment(SUPERVISOR_SERIES);
  reader.attach(SUPERVISOR_WRITER, segment);
  const series = new SeriesWriter(segment, (announcement) => reader.announce(SUPERVISOR_WRITER, [announcement]));
  series.set(series.slot(metrics.build, ['ztunnel', String(settings.metadata.ISTIO_VERSION ?? 'unknown')]), 1);

  // State, and what comes of its changes.
  const writer = new MeshStateWriter({ node: settings.nodeName || undefined });
  const token = tokenSource(settings.authToken, DEFAULT_TOKEN_FILE);
  const keeper = certificateKeeper({
    settings,
    token,
    clock,
    random: Math.random,
    log: log.child({ part: 'certificates' }),
    listener: {
      arrived: (certificate) => fleet.certificateArrived(certificate),
      failed: (identity, reason) => fleet.certificateFailed(identity, reason),
    },
  });
  const fleet = new WorkerFleet({
    spawn: spawnWorker,
    settings,
    state: writer.shared,
    nameservers: nameserversOf(RESOLV_CONF),
    onThreadEnded: (thread) => writer.forgetReader(thread),
    clock,
    log,
    reader,
    series,
    onCertificateWanted: (identity) => keeper.want(identity, 'realtime'),
  });
  const prefetch = new Prefetch(keeper);
  writer.onChange((change) => {
    if (settings.mode === 'shared' && settings.certDir === undefined) prefetch.changed(change);
    fleet.stateChanged(change.policies.length > 0);
  });

  // Who is served.
  const pods = new PodTable({
    start: (pod) => fleet.addPod(pod),
    stop: (uid) => fleet.removePod(uid),
    clock,
    log: log.child({ part: 'pods' }),
    series,
  });
  const zds = new ZdsClient({
    path: settings.zdsPath,
    connect: (path) => SeqpacketSocket.connect(path),
    netns: (fd) => Netns.fromFd(fd),
    closeFd,
    pods,
    clock,
    log: log.child({ part: 'zds' }),
  });

  // Where the state comes from. A control plane that was asked for is waited for, before any pod is served.
  const hasStatic = settings.localXdsPath !== undefined || settings.localXds !== undefined;
  await applyStaticConfig(settings, writer);
  const endpoint = hasStatic ? undefined : settings.xds;
  const { promise: synced, resolve: onSynced } = Promise.withResolvers<void>();
  const xds = endpoint && controlPlane({ settings, endpoint, token, writer, series, clock, log: log.child({ part: 'xds' }), onSynced });
  if (!xds) onSynced();
  let serving = false;

  const readiness = new Readiness();
  readiness.task('state manager', () => xds?.status.synced ?? true);
  readiness.task('proxy', () => serving && fleet.readyCount > 0);
  if (settings.mode === 'shared') readiness.task('workload proxy manager', () => pods.ready);

  const certificatesSlots = (['available', 'initializing', 'unavailable'] as const).map(
    (state) => [state, series.slot(metrics.certificates, [state])] as const,
  );
  const expirySlot = series.slot(metrics.certificateExpiry, []);
  const endpoints = await serveEndpoints({
    settings,
    log,
    reader,
    series,
    readiness,
    levels: () => levels,
    setLevels: (next) => {
      levels = next;
      logs.setLevel(next.level);
      fleet.setLogLevels(next.level, next.scopes.access ?? next.level);
    },
    configDump: () =>
      configDump({
        state: () => stateDump(writer),
        certificates: () => keeper.states(),
        pods: () => pods.states(),
        connections: () => fleet.connections(),
        settings,
      }),
    quit: () => quit(),
    beforeScrape: () => {
      const states = keeper.states();
      for (const [state, slot] of certificatesSlots) series.set(slot, states.filter(({ at }) => at === state).length);
      const expiries = states.flatMap((state) => (state.at === 'available' ? [state.certificate.notAfter] : []));
      series.set(expirySlot, expiries.length > 0 ? Math.min(...expiries) / 1000 : 0);
    },
  });

  log.info({ mode: settings.mode, workers: settings.workers, openFiles, controlPlane: endpoint?.target }, 'ztunnel starts');
  await fleet.start();
  xds?.start();
  const starting = synced.then(async () => {
    await startServing(settings, fleet);
    serving = true;
    if (settings.mode === 'shared') zds.start();
    log.info('ztunnel serves');
  });
  starting.catch((error: unknown) => {
    // A port of ours that is taken in our own namespace will not come free by waiting.
    log.error({ error: errorMessage(error) }, 'ztunnel cannot serve');
    quit(errorMessage(error));
  });

  return {
    async drain() {
      log.info({ deadlineMs: settings.drainDeadlineMs }, 'draining');
      await zds.stop();
      await fleet.drain(settings.drainDeadlineMs);
      await xds?.stop();
      keeper.stop();
      await fleet.stop();
      await endpoints.close();
      log.info('ztunnel has ended');
    },
  };
}

const SUPERVISOR_WRITER = -1;

/** The two that no node agent tells us about: a dedicated proxy's one workload, and ourselves. */
async function startServing(settings: ZtunnelSettings, fleet: WorkerFleet): Promise<void> {
  const { mode, workload, podName: name, podNamespace: namespace, serviceAccount } = settings;
  if (mode === 'dedicated' && workload) await fleet.addPod({ uid: 'dedicated', info: workload, netnsFd: undefined, kind: 'pod' });
  if (mode === 'shared' && name !== '' && namespace !== '' && serviceAccount !== '') {
    await fleet.addPod({ uid: 'self', info: { name, namespace, serviceAccount }, netnsFd: undefined, kind: 'self' });
  }
}
