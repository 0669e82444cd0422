/**
 * A waypoint, part by part in start order. The supervisor's thread talks to the control plane, the CA and operators; data workers carry
 * requests over state and counters that they share with it.
 */
import { systemClock, threadsMicroseconds } from '../common/base/clock.ts';
import { errorMessage } from '../common/base/errors.ts';
import type { LogRoot } from '../common/base/log.ts';
import { VERSION } from '../common/base/version.ts';
import { tokenSource } from '../common/client/grpc-endpoint.ts';
import { LogLevels } from '../common/server/log-levels.ts';
import { serveEndpoints } from '../common/server/proxy-endpoints.ts';
import { Readiness } from '../common/server/readiness.ts';
import { createSegment, SeriesReader, SeriesWriter } from '../common/server/shared-series.ts';
import { Taps } from '../common/server/taps.ts';
import { stateDump } from '../common/state/config-dump.ts';
import { MeshStateWriter } from '../common/state/writer.ts';
import { SharedBuckets } from './http/buckets.ts';
import { metricFamilies, metrics } from './metrics.ts';
import type { WaypointSettings } from './settings.ts';
import { certificateKeeper } from './supervisor/certificate.ts';
import { configDump } from './supervisor/config-dump.ts';
import { applyStaticConfig, controlPlane } from './supervisor/control-plane.ts';
import { diagnostics } from './supervisor/diagnostics.ts';
import { WaypointResources } from './supervisor/resources.ts';
import { spawnWorker } from './supervisor/spawn.ts';
import { WorkerFleet } from './supervisor/workers.ts';

export interface Waypoint {
  /** Stops accepting, lets requests and connections end until the deadline, then stops everything. */
  drain(): Promise<void>;
}

const SUPERVISOR_SERIES = 1000;
const SUPERVISOR_WRITER = -1;
const DEFAULT_TOKEN_FILE = './var/run/secrets/tokens/istio-token';

/** @param quit called when somebody asks for the end over the admin port, and with a problem where it cannot go on */
export async function startWaypoint(settings: WaypointSettings, logs: LogRoot, quit: (problem?: string) => void): Promise<Waypoint> {
  const { log } = logs;
  const clock = systemClock;

  // Counters: the supervisor writes a segment of its own, as each worker does.
  const reader = new SeriesReader(metricFamilies);
  const segment = createSegment(SUPERVISOR_SERIES);
  reader.attach(SUPERVISOR_WRITER, segment);
  const series = new SeriesWriter(segment, (announcement) => reader.announce(SUPERVISOR_WRITER, [announcement]));
  series.set(series.slot(metrics.build, ['waypoint', String(settings.metadata.ISTIO_VERSION ?? VERSION)]), 1);

  // The mesh, routes and policies, the certificate, and the workers that all of it is for.
  const writer = new MeshStateWriter({ node: settings.nodeName || undefined });
  const resources: WaypointResources = new WaypointResources((push) => fleet.configurationChanged(push));
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
  const fleet: WorkerFleet = new WorkerFleet({
    spawn: spawnWorker,
    settings,
    state: writer.shared,
    configuration: () => resources.snapshot(),
    onThreadEnded: (thread) => writer.forgetReader(thread),
    onCertificateWanted: (identity) => keeper.want(identity, 'realtime'),
    onRefused: (refusals) => reports?.refused(refusals),
    onTapped: (batches) => taps.found(batches),
    clock,
    log,
    reader,
    series,
  });
  const taps = new Taps({ clock, changed: (specs) => fleet.setTaps(specs) });
  writer.onChange(() => fleet.stateChanged());

  // Where all of it comes from.
  await applyStaticConfig(settings, writer, resources);
  const endpoint = settings.localXdsPath === undefined ? settings.xds : undefined;
  const { promise: synced, resolve: onSynced } = Promise.withResolvers<void>();
  const xds =
    endpoint && controlPlane({ settings, endpoint, token, writer, resources, series, clock, log: log.child({ part: 'xds' }), onSynced });
  if (!xds) onSynced();
  const tunnels = settings.hbonePort !== 0;
  if (tunnels) keeper.want(settings.identity, 'warmup');

  let draining = false;
  const readiness = new Readiness();
  readiness.task('state manager', () => xds?.status.synced ?? true);
  readiness.task('proxy', () => !draining && fleet.listeningCount > 0);
  readiness.task('certificate', () => !tunnels || keeper.states().some(({ at }) => at === 'available'));

  const levels = new LogLevels(settings.log, ({ level, scopes }) => {
    logs.setLevel(level);
    fleet.setLogLevels(level, scopes.access ?? level);
  });
  const dump = (): object => configDump({ state: () => stateDump(writer), certificates: () => keeper.states(), resources, settings });
  const about = {
    settings,
    token,
    clock,
    keeper,
    readiness,
    levels,
    reader,
    taps,
    configDump: dump,
    journal: (wanted: { sinceMs: number; id: string }) => fleet.journal(wanted),
    view: writer.view(),
    configuration: () => resources.snapshot(),
    buckets: new SharedBuckets(fleet.buckets, threadsMicroseconds),
  };
  const reports = endpoint && diagnostics({ ...about, endpoint, log: log.child({ part: 'diagnostics' }) });

  const gauges = {
    expiry: series.slot(metrics.certificateExpiry, []),
    routes: series.slot(metrics.routes, []),
    policies: series.slot(metrics.policies, []),
  };
  const endpoints = await serveEndpoints({
    name: 'waypoint',
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
    beforeScrape: () => {
      const [state] = keeper.states();
      series.set(gauges.expiry, state?.at === 'available' ? state.certificate.notAfter / 1000 : 0);
      series.set(gauges.routes, resources.counts.routes);
      series.set(gauges.policies, resources.counts.policies);
    },
  });

  log.info(
    { identity: settings.identity, host: settings.host, workers: settings.workers, controlPlane: endpoint?.target },
    'waypoint starts',
  );
  await fleet.start();
  xds?.start();
  reports?.start();
  const starting = synced.then(async () => {
    await fleet.serve();
    log.info('waypoint serves');
  });
  starting.catch((error: unknown) => {
    // A port of ours that is taken in our own namespace will not come free by waiting.
    log.error({ error: errorMessage(error) }, 'waypoint cannot serve');
    quit(errorMessage(error));
  });

  return {
    async drain() {
      draining = true;
      const { minimumDrainMs: acceptMs, drainDeadlineMs: deadlineMs } = settings;
      log.info({ acceptMs, deadlineMs }, 'draining');
      await fleet.drain({ acceptMs, deadlineMs });
      await xds?.stop();
      await reports?.stop();
      keeper.stop();
      await fleet.stop();
      await endpoints.close();
      log.info('waypoint has ended');
    },
  };
}
