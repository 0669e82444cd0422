/**
 * A ztunnel, part by part in start order. The supervisor's thread talks to the control plane, the CA, the node agent and operators; data
 * workers carry connections over state and counters that they share with it.
 */
import { systemClock } from '../common/base/clock.ts';
import { errorMessage } from '../common/base/errors.ts';
import type { LogRoot } from '../common/base/log.ts';
import { tokenSource } from '../common/client/grpc-endpoint.ts';
import { raiseOpenFileLimit } from '../common/linux/limits.ts';
import { Netns } from '../common/linux/netns.ts';
import { SeqpacketSocket } from '../common/linux/seqpacket.ts';
import { closeFd } from '../common/linux/sockets.ts';
import { LogLevels } from '../common/server/log-levels.ts';
import { serveEndpoints } from '../common/server/proxy-endpoints.ts';
import { Readiness } from '../common/server/readiness.ts';
import { Taps } from '../common/server/taps.ts';
import { stateDump } from '../common/state/config-dump.ts';
import { MeshStateWriter } from '../common/state/writer.ts';
import { metricFamilies, metrics } from './metrics.ts';
import type { ZtunnelSettings } from './settings.ts';
import { certificateKeeper, measureCertificates, Prefetch, prefetches } from './supervisor/certificates.ts';
import { configDump } from './supervisor/config-dump.ts';
import { meshSource } from './supervisor/control-plane.ts';
import { supervisorCounters } from './supervisor/counters.ts';
import { watchCrl } from './supervisor/crl-file.ts';
import { type DiagnosticsOptions, diagnostics } from './supervisor/diagnostics.ts';
import { firstState, measureKept, openKept, pruneCertificates } from './supervisor/kept.ts';
import { MemoryGuard, memoryBudget } from './supervisor/memory-guard.ts';
import { MemoryReturn } from './supervisor/memory-return.ts';
import { nameserversOf } from './supervisor/nameservers.ts';
import { ownPods } from './supervisor/own-pods.ts';
import { PodTable } from './supervisor/pods.ts';
import { spawnWorker, threadCpuMs } from './supervisor/spawn.ts';
import { WorkerFleet } from './supervisor/workers.ts';
import { ZdsClient } from './supervisor/zds-client.ts';

export interface Ztunnel {
  /** Stops accepting, lets connections end until the deadline, then stops everything. */
  drain(): Promise<void>;
}

const RESOLV_CONF = '/etc/resolv.conf';
const TOKEN_FILE = './var/run/secrets/tokens/istio-token';

/**
 * Resolves when everything is under way; a control plane that is away, or a worker that does not come up, does not hold it back.
 * @param quit called when somebody asks for the end over the admin port, and with a problem where it cannot go on
 * @throws {Error} for a static configuration that is wrong, or an endpoint whose port is taken
 */
export async function startZtunnel(settings: ZtunnelSettings, logs: LogRoot, quit: (problem?: string) => void): Promise<Ztunnel> {
  const { log } = logs;
  const clock = systemClock;
  const openFiles = raiseOpenFileLimit();
  const { reader, series } = supervisorCounters(settings);
  const token = tokenSource(settings.authToken, TOKEN_FILE);
  const writer = new MeshStateWriter({ node: settings.nodeName || undefined });
  const kept = openKept({ settings, writer, clock, log: log.child({ part: 'kept' }) });

  const fleet = new WorkerFleet({
    spawn: spawnWorker,
    settings,
    state: writer.shared,
    nameservers: nameserversOf(RESOLV_CONF),
    onThreadEnded: (thread) => writer.forgetReader(thread),
    openFiles,
    threadCpuMs,
    onUsage: (worker, usage) => memory.report(worker, usage),
    onStuck: () => quit('a data worker hangs and cannot be ended'),
    clock,
    log,
    reader,
    series,
    onAddressWanted: (name) => source.want(name),
    onCertificateWanted: (identity) => keeper.want(identity, 'realtime'),
    onRefused: (refusals) => reports?.refused(refusals),
    onTapped: (batches) => taps.found(batches),
  });
  const taps = new Taps({ clock, changed: (specs) => fleet.setTaps(specs) });
  const memory = new MemoryGuard({
    budgetBytes: memoryBudget(settings.memoryBudgetMb),
    resident: () => process.memoryUsage.rss(),
    clock,
    log,
    series,
    shed: (uid, cut) => fleet.shed(uid, cut),
  });
  const keeper = certificateKeeper({
    settings,
    token,
    clock,
    random: Math.random,
    log: log.child({ part: 'certificates' }),
    kept: kept.certificates,
    listener: {
      arrived: (certificate) => fleet.certificateArrived(certificate),
      failed: (identity, reason) => fleet.certificateFailed(identity, reason),
    },
  });
  const prefetch = prefetches(settings) ? new Prefetch(keeper) : undefined;
  const { crlPath } = settings;
  if (crlPath !== undefined)
    watchCrl({ path: crlPath, clock, log: log.child({ part: 'crl' }), changed: (revoked) => fleet.revoked(revoked) });
  const memoryReturn = new MemoryReturn(clock, log);
  writer.onChange((change) => {
    prefetch?.changed(change);
    fleet.stateChanged(change.policies > 0);
    memoryReturn.changed(change);
  });
  const restored = kept.state?.restore();

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
  const source = await meshSource({
    settings,
    token,
    writer,
    series,
    clock,
    log: log.child({ part: 'xds' }),
    kept: kept.state,
    onKnown: (names) => fleet.addressesKnown(names),
  });

  let serving = false;
  const readiness = new Readiness();
  readiness.task('state manager', () => source.isSynced || (serving && restored !== undefined));
  readiness.task('proxy', () => serving && fleet.readyCount > 0);
  if (settings.mode === 'shared') readiness.task('workload proxy manager', () => pods.ready);

  const levels = new LogLevels(settings.log, ({ level, scopes }) => {
    logs.setLevel(level);
    fleet.setLogLevels(level, scopes.access ?? level);
  });
  const dump = (): Promise<object> =>
    configDump({
      state: () => stateDump(writer),
      certificates: () => keeper.states(),
      pods: () => pods.states(),
      connections: () => fleet.connections(),
      settings,
    });
  const journal: DiagnosticsOptions['journal'] = (wanted) => fleet.journal(wanted);
  const about = { settings, token, clock, keeper, pods, readiness, levels, reader, taps, configDump: dump, journal, view: writer.view() };
  const reports = settings.xds && diagnostics({ ...about, endpoint: settings.xds, log: log.child({ part: 'diagnostics' }) });
  reports?.start();

  const endpoints = await serveEndpoints({
    name: 'ztunnel',
    settings,
    log,
    reader,
    series,
    families: metricFamilies,
    process: metrics,
    readiness,
    levels,
    configDump: dump,
    quit: () => quit(),
    beforeScrape() {
      measureCertificates(keeper, series);
      measureKept(source, restored, kept, series);
    },
  });

  log.info({ mode: settings.mode, workers: settings.workers, openFiles, controlPlane: source.name }, 'ztunnel starts');
  source.start();
  const serve = async (): Promise<void> => {
    // Before the mesh's state is there nothing could be decided, and no pod may be told that it is served.
    await Promise.all([fleet.start(), firstState(source, restored, { clock, log })]);
    for (const pod of ownPods(settings)) await fleet.addPod(pod);
    serving = true;
    if (settings.mode === 'shared') zds.start();
    log.info('ztunnel serves');
    memoryReturn.soon();
    memoryReturn.watch();
    void pruneCertificates(source, kept, () => keeper.states().map(({ identity }) => identity), clock);
  };
  serve().catch((error: unknown) => {
    // A port of ours that is taken in our own namespace will not come free by waiting.
    log.error({ error: errorMessage(error) }, 'ztunnel cannot serve');
    quit(errorMessage(error));
  });

  return {
    async drain() {
      log.info({ deadlineMs: settings.drainDeadlineMs }, 'draining');
      await zds.stop();
      await fleet.drain(settings.drainDeadlineMs);
      await source.stop();
      await reports?.stop();
      keeper.stop();
      await fleet.stop();
      await endpoints.close();
      log.info('ztunnel has ended');
    },
  };
}
