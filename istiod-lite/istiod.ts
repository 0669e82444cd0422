/**
 * istiod-lite, as a table of contents: the cluster is watched, the index translates, proxies are told over xDS, certificates are signed, and
 * one replica of several writes roots and statuses back to the cluster.
 */
import { parseCidr } from '../common/base/address.ts';
import { type Clock, seconds, sleep } from '../common/base/clock.ts';
import { errorMessage } from '../common/base/errors.ts';
import type { Log } from '../common/base/log.ts';
import type { KubeObject } from '../common/client/kube-api.ts';
import { serveHttp } from '../common/server/http-endpoint.ts';
import { createGate } from './access/access.ts';
import { NodeAuthorizer } from './access/node-authorizer.ts';
import { TokenReviewer } from './access/token-review.ts';
import { type Admission, startAdmission } from './admission/admission.ts';
import { certificateDefinition, createCertificateHandler } from './ca/certificate-service.ts';
import { RequestLimits } from './ca/request-limits.ts';
import { startTrust } from './ca/trust.ts';
import { ProxyReports } from './diagnostics/reports.ts';
import { createDiagnosticsHandler, diagnosticsDefinition } from './diagnostics/service.ts';
import { keepRoots } from './files/file-cluster.ts';
import { inCluster, startOutside } from './files/outside.ts';
import { GatewayDeployer } from './gateway/deployer.ts';
import { WaypointAccounts } from './gateway/waypoint-accounts.ts';
import { fetchKeys, lookupAll } from './jwks/fetch.ts';
import { KeyKeeper } from './jwks/keeper.ts';
import { CertificateWatch } from './kube/certificate-watch.ts';
import type { ClusterApi } from './kube/cluster-api.ts';
import { watchCluster } from './kube/cluster-watch.ts';
import { WriterLease } from './kube/lease.ts';
import { podFacts } from './kube/pod-facts.ts';
import { Scope } from './kube/scope.ts';
import { StatusWriter } from './kube/status-writer.ts';
import { countEvent, createMetrics, setExpiry, setProblems } from './metrics.ts';
import type { MeshModelConfig } from './model/config.ts';
import { MeshIndex } from './model/index.ts';
import * as names from './model/names.ts';
import { DISCOVER } from './model/request-authentication.ts';
import type { Candidate } from './rehearsal/candidate.ts';
import { Rehearsals } from './rehearsal/rehearsals.ts';
import { coveragePage } from './server/coverage-page.ts';
import { DEBUG_AUDIENCE, type Sight } from './server/debug-pages.ts';
import { serveGrpc } from './server/grpc-server.ts';
import { answerMonitoring, answerReadiness } from './server/http-endpoints.ts';
import { anyAddress } from './server/listen-address.ts';
import type { IstiodSettings } from './settings.ts';
import { adsDefinition, createAdsHandlers } from './xds/ads-service.ts';
import { debugTypes } from './xds/debug-types.ts';
import { Proxies } from './xds/proxies.ts';
import { Publisher } from './xds/publisher.ts';
import { PushThrottle } from './xds/push-throttle.ts';

export interface IstiodOptions {
  readonly settings: IstiodSettings;
  readonly api: ClusterApi;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
}

export interface Istiod {
  readonly grpcPort: number;
  readonly monitoringPort: number;
  readonly httpPort: number;
  /** undefined without Kubernetes. */
  readonly webhookPort: number | undefined;
  /** Everything that /ready asks for. */
  readonly ready: boolean;
  /** Proxies are asked to go elsewhere, the lease is let go, ports close. */
  close(): Promise<void>;
}

const LEASE_NAME = 'istio-leader';
/** Objects that somebody rehearses; what the API server takes in one object is 3 MiB. */
const MAX_BODY_BYTES = 4 << 20;
const MAX_UNANSWERED = 10_000;
// A node that starts asks for each of its pods at once, 250 in the largest; renewals come one by one.
const CERTIFICATES_AT_ONCE = 1000;
const CERTIFICATES_PER_SECOND = 50;
// After the last stream has been asked to go: for its last words, and for certificates under way.
const LAST_WORDS_MS = seconds(1);

/** Resolves when all ports are open; ready comes later, when the cluster has been read. @throws Error naming a taken port or a bad CA */
export async function startIstiod({ settings, api, clock, random, log }: IstiodOptions): Promise<Istiod> {
  const startedAt = clock.monotonic();
  const stop = new AbortController();
  const signal = stop.signal;
  const world = { api, clock, random, log, signal };
  const namespace = settings.systemNamespace;
  const metrics = createMetrics({ processMetrics: true });
  const missing = new Set(['cluster', 'ports']);

  const trust = await startTrust({
    ...world,
    namespace,
    trustDomain: settings.trustDomain,
    directory: settings.rootCaDirectory,
    rootLifetimeMs: settings.rootCertificateMs,
    rotationWaitMs: settings.rootRotationWaitMs,
    signer: signerOf(settings),
    dnsNames: servingNames(settings),
    servingLifetimeMs: settings.defaultCertificateMs,
    servingDirectory: settings.servingDirectory,
    servingRootsFile: settings.servingRootsFile,
    writes: () => lease.held,
    reloaded: (outcome) => metrics.caReloads.inc({ outcome }),
    ...(settings.configDirectory !== undefined && { rootsChanged: (pem: string) => keepRoots(settings.stateDirectory, pem) }),
  });

  // The lease may come before the port is open.
  let admission: Admission | undefined;
  const lease = new WriterLease({
    ...world,
    namespace,
    name: LEASE_NAME,
    identity: settings.podName,
    onAcquired: () => {
      metrics.writer.set(1);
      trust.resume();
      statuses.resume();
      gateways.everything();
      admission?.resume();
    },
    onLost: () => metrics.writer.set(0),
  });
  const statuses = new StatusWriter({ ...world, writes: () => lease.held, wrote: (outcome) => metrics.statusWrites.inc({ outcome }) });

  const network = settings.network || (await networkOf(api, namespace, log));
  const gateways = new GatewayDeployer({
    ...world,
    revision: settings.revision,
    image: settings.waypointImage,
    discoveryAddress: settings.discoveryAddress ?? `istiod.${namespace}.svc:15012`,
    caAddress: settings.caAddress,
    clusterId: settings.clusterId,
    trustDomain: settings.trustDomain,
    network,
    systemNamespace: namespace,
    writes: () => lease.held && cluster.synced,
    setProblem: (gateway, problem) => publisher.setGatewayProblem(gateway, problem),
  });

  const model: MeshModelConfig = {
    clusterId: settings.clusterId,
    domain: settings.domain,
    rootNamespace: settings.rootNamespace ?? namespace,
    systemNamespace: namespace,
    trustDomain: settings.trustDomain,
    revision: settings.revision,
    network,
    ...autoAddresses(settings),
    guardClaims: settings.guardClaims,
    grantedHosts: settings.grantedHosts,
  };
  const index = new MeshIndex(model);
  const proxies = new Proxies(clock, (versions) => {
    metrics.xds.reset();
    for (const [version, count] of versions) metrics.xds.set({ version }, count);
  });
  const publisher = new Publisher({
    index,
    proxies,
    metrics,
    clock,
    log,
    intervalMs: settings.debounceMs,
    writeStatuses: (writes, settled) => statuses.write(writes, settled),
    keysWanted: (sources) => keys.want(sources),
    certificatesWanted: (sources) => certificates.want(sources),
  });
  const keys: KeyKeeper = new KeyKeeper({
    clock,
    random,
    log,
    refreshMs: settings.keyRefreshMs,
    fetch: (from) =>
      fetchKeys(from, DISCOVER, {
        timeoutMs: settings.keyTimeoutMs,
        blocked: settings.blockedKeyRanges.flatMap((range) => parseCidr(range) ?? []),
        lookup: lookupAll,
      }),
    changed: (from, found) => publisher.setKeys(from, found),
    fetched: (outcome) => (outcome === 'success' ? metrics.keyFetches : metrics.keyFailures).inc(),
  });
  const certificates: CertificateWatch = new CertificateWatch({
    ...world,
    changed: (source, found) => publisher.setCertificates(source, found),
  });
  const nodes = new NodeAuthorizer(settings.trustedNodeAccounts);
  const waypoints = new WaypointAccounts();
  const outside =
    settings.configDirectory === undefined
      ? inCluster
      : startOutside({ api, clock, log, nodes, systemNamespace: namespace, intervalMs: settings.healthIntervalMs });

  const scope = new Scope({
    selectors: settings.discoverySelectors,
    always: [namespace, settings.rootNamespace ?? namespace],
    revision: settings.revision,
  });
  const cluster = watchCluster({
    ...world,
    scope,
    onChange(kind, { type, object }) {
      countEvent(metrics, kind, type);
      if (kind === 'Namespace') trust.namespaceChanged(object.metadata.name ?? '', type !== 'deleted');
      if (kind === 'Gateway') gateways.gatewayChanged(object, type === 'deleted');
      if (kind === 'Gateway') waypoints.gatewayChanged(object, type === 'deleted');
      if (kind === 'GatewayClass') gateways.classChanged(object, type === 'deleted');
      if (kind === 'WorkloadEntry') outside.entryChanged(object, type === 'deleted');
      if (kind === 'Pod' && type !== 'deleted') nodes.podChanged(podFacts(object));
      if (kind === 'Pod' && type === 'deleted') nodes.podRemoved(podFacts(object));
      publisher.apply({ type, kind, object });
    },
    onSynced() {
      publisher.start();
      missing.delete('cluster');
      // Not before: who writes must know what there is.
      void lease.run();
      metrics.startup.set((clock.monotonic() - startedAt) / 1000);
      log.info({ ...index.counts, ms: Math.round(clock.monotonic() - startedAt) }, 'cluster read');
    },
  });

  const reviews = { api, clock, reviewed: (outcome: 'accepted' | 'refused' | 'failed') => metrics.tokenReviews.inc({ outcome }) };
  const reviewer = new TokenReviewer({ ...reviews, audiences: settings.tokenAudiences });
  const access = createGate({
    reviewer,
    trustDomain: settings.trustDomain,
    world: {
      isNode: (caller) => settings.trustedNodeAccounts.includes(`${caller.namespace}/${caller.serviceAccount}`) || outside.isHost(caller),
      systemNamespace: namespace,
      notOfGateway: (gateway, account) => waypoints.notOf(gateway, account),
      isWaypointAccount: (of, account) => waypoints.isAccount(of, account),
      onNodeOf: (caller, identity) => nodes.authorize(caller, identity),
    },
  });
  const leaving = new AbortController();
  const synced = (): boolean => cluster.synced;
  const ready = (): boolean => cluster.synced && !leaving.signal.aborted;
  const reports = new ProxyReports(clock);
  const rehearsals = new Rehearsals({ reports, api, config: model, signal });
  const grpc = await serveGrpc({
    port: settings.grpcPort,
    certificate: trust.certificate,
    maxConnectionAgeMs: settings.maxConnectionAgeMs,
    services: [
      {
        definition: adsDefinition,
        implementation: {
          ...createAdsHandlers({
            access,
            servedTo: (node) =>
              node.type === 'ztunnel'
                ? publisher.forZtunnel(node.node)
                : publisher.forWaypoint(`${node.namespace}/${node.gateway}`, waypoints.hostOf(`${node.namespace}/${node.gateway}`)),
            debugTypes: debugTypes(() => proxies.rows(), settings.podName),
            proxies,
            throttle: new PushThrottle({ clock, slots: settings.pushThrottle }),
            metrics,
            clock,
            random,
            log,
            ready,
            identityCheck: settings.identityCheck,
            systemVersion: () => publisher.version,
            limits: {
              writeTimeoutMs: settings.sendTimeoutMs,
              ackTimeoutMs: settings.ackTimeoutMs,
              maxUnanswered: MAX_UNANSWERED,
              maxProxies: settings.maxProxies,
              maxConnectionAgeMs: settings.maxConnectionAgeMs,
            },
          }),
        },
      },
      {
        definition: diagnosticsDefinition,
        implementation: {
          report: createDiagnosticsHandler({ access, reports, log, maxProxies: settings.maxProxies, ready, draining: leaving.signal }),
        },
      },
      {
        definition: certificateDefinition,
        implementation: {
          createCertificate: createCertificateHandler({
            access,
            limits: new RequestLimits({ clock, burst: CERTIFICATES_AT_ONCE, perSecond: CERTIFICATES_PER_SECOND }),
            sign: trust.sign,
            // While leaving too: whoever asks now has no other replica yet.
            ready: synced,
            trustDomain: settings.trustDomain,
            defaultLifetimeMs: settings.defaultCertificateMs,
            maxLifetimeMs: settings.maxCertificateMs,
            metrics,
            log,
          }),
        },
      },
    ],
  });

  // Without Kubernetes nobody asks: files are read as they are, and the log says what is wrong with them.
  if (settings.configDirectory === undefined) {
    admission = await startAdmission({
      ...world,
      port: settings.httpsPort,
      address: anyAddress(),
      certificate: trust.certificate,
      name: settings.webhookConfiguration ?? `istio-validator-${namespace}`,
      view: index,
      config: model,
      strict: settings.refuseUnenforced,
      inScope: (kind, object) => scope.judges(kind, object),
      ready,
      writes: () => lease.held,
      reviewed: (outcome) => metrics.reviews.inc({ outcome }),
    });
  }

  const endpoints = {
    metrics,
    debug: {
      proxies,
      reports,
      index,
      ca: () => trust.describe(),
      mesh: () => settings,
      coverage: (of: string | undefined) =>
        coveragePage({ api, index, inScope: (kind, object) => scope.includes(kind, object), signal }, of),
      rehearse: (candidate: Candidate, sight: Sight) => rehearsals.run(candidate, sight === 'everything' ? undefined : sight.namespace),
    },
    access,
    reviewer: new TokenReviewer({ ...reviews, audiences: [DEBUG_AUDIENCE, ...settings.tokenAudiences] }),
    missing: () => [...missing, ...(missing.has('cluster') ? cluster.missing : []), ...(leaving.signal.aborted ? ['shutting down'] : [])],
    refreshMetrics() {
      setExpiry(metrics, trust.expiry, clock.now());
      setProblems(metrics, index.problems());
      metrics.uptime.set((clock.monotonic() - startedAt) / 1000);
    },
  };
  const monitoring = await serveHttp({
    name: 'monitoring',
    addresses: [anyAddress()],
    port: settings.monitoringPort,
    log,
    maxBodyBytes: MAX_BODY_BYTES,
    answer: answerMonitoring(endpoints),
  });
  const readiness = await serveHttp({
    name: 'readiness',
    addresses: [anyAddress()],
    port: settings.httpPort,
    log,
    answer: answerReadiness(endpoints),
  });
  missing.delete('ports');
  log.info({ grpc: grpc.port, monitoring: monitoring.port, readiness: readiness.port, webhook: admission?.port }, 'istiod started');

  return {
    grpcPort: grpc.port,
    monitoringPort: monitoring.port,
    httpPort: readiness.port,
    webhookPort: admission?.port,
    get ready() {
      return endpoints.missing().length === 0;
    },
    async close() {
      leaving.abort(new Error('istiod is shutting down'));
      const released = lease.release();
      // No new connections from here on; those that are open are asked to go one by one, and are told of changes until they do.
      const drained = proxies.drain('istiod is shutting down; connect to another replica', settings.drainMs);
      // Two waits, one after the other: a node that stands still in the first leaves the second as long as it is.
      const patience = Promise.all([drained, sleep(clock, settings.drainMs)]).then(() => sleep(clock, LAST_WORDS_MS));
      await Promise.all([released, grpc.close(patience)]);
      stop.abort(leaving.signal.reason);
      publisher.stop();
      keys.stop();
      trust.close();
      outside.stop();
      await Promise.all([monitoring.close(), readiness.close(), admission?.close()]);
      api.close();
    },
  };
}

/** @throws {Error} where a signer of the cluster is wanted and none is named */
function signerOf({ caServer, externalCa, kubernetesSigner }: IstiodSettings) {
  if (!caServer) return 'elsewhere';
  if (externalCa !== 'ISTIOD_RA_KUBERNETES_API') return 'istiod';
  if (kubernetesSigner === '') throw new Error('EXTERNAL_CA asks for a signer of the cluster, and K8S_SIGNER names none');
  return { kubernetes: kubernetesSigner };
}

function servingNames({ systemNamespace: namespace, customHost }: IstiodSettings): string[] {
  return [...new Set([`istiod.${namespace}.svc`, `istiod-remote.${namespace}.svc`, `istio-pilot.${namespace}.svc`, ...customHost])];
}

/** @throws {Error} for a range that is none */
function autoAddresses({ autoAllocate, autoAllocateV4, autoAllocateV6 }: IstiodSettings): Pick<MeshModelConfig, 'autoAddresses'> {
  if (!autoAllocate) return {};
  const [v4, v6] = [parseCidr(autoAllocateV4), parseCidr(autoAllocateV6)];
  if (v4?.bytes.length !== 4) throw new Error(`PILOT_IP_AUTOALLOCATE_IPV4_PREFIX: ${autoAllocateV4} is no range of IPv4`);
  if (v6?.bytes.length !== 16) throw new Error(`PILOT_IP_AUTOALLOCATE_IPV6_PREFIX: ${autoAllocateV6} is no range of IPv6`);
  return { autoAddresses: { v4, v6 } };
}

/** The label on istiod's namespace; none where it cannot be read, since a cluster of one network needs none. */
async function networkOf(api: ClusterApi, namespace: string, log: Log): Promise<string> {
  try {
    const { metadata } = await api.get<KubeObject>(`/api/v1/namespaces/${namespace}`);
    return metadata.labels?.[names.NETWORK] ?? '';
  } catch (error) {
    log.warn({ namespace, error: errorMessage(error) }, 'the network could not be read from the namespace');
    return '';
  }
}
