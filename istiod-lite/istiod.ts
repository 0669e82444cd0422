/**
 * istiod-lite, as a table of contents: the cluster is watched, the index translates, proxies are told over xDS, certificates are signed, and
 * one replica of several writes roots and statuses back to the cluster.
 */
import type { Clock } from '../common/base/clock.ts';
import { errorMessage } from '../common/base/errors.ts';
import type { Log } from '../common/base/log.ts';
import type { KubeApi, KubeObject } from '../common/client/kube-api.ts';
import { watchObjects } from '../common/client/kube-watch.ts';
import { serveHttp } from '../common/server/http-endpoint.ts';
import { CaKeeper } from './ca/ca-keeper.ts';
import { certificateDefinition, createCertificateHandler } from './ca/certificate-service.ts';
import { NodeAuthorizer } from './access/node-authorizer.ts';
import { ROOT_CONFIG_MAP, RootDistribution } from './ca/root-distribution.ts';
import { ServingCertificate } from './ca/serving-certificate.ts';
import { TokenReviewer } from './ca/token-review.ts';
import { ProxyReports } from './diagnostics/reports.ts';
import { createDiagnosticsHandler, diagnosticsDefinition } from './diagnostics/service.ts';
import { GatewayDeployer } from './gateway/deployer.ts';
import { watchCluster } from './kube/cluster-watch.ts';
import { WriterLease } from './kube/lease.ts';
import { podFacts } from './kube/pod-facts.ts';
import { StatusWriter } from './kube/status-writer.ts';
import { countEvent, createMetrics } from './metrics.ts';
import { MeshIndex } from './model/index.ts';
import * as names from './model/names.ts';
import { serveGrpc } from './server/grpc-server.ts';
import { answerMonitoring, answerReadiness } from './server/http-endpoints.ts';
import { anyAddress } from './server/listen-address.ts';
import type { IstiodSettings } from './settings.ts';
import { adsDefinition, createAdsHandler } from './xds/ads-service.ts';
import { Proxies } from './xds/proxies.ts';
import { Publisher } from './xds/publisher.ts';
import { PushThrottle } from './xds/push-throttle.ts';

export interface IstiodOptions {
  readonly settings: IstiodSettings;
  readonly api: KubeApi;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
}

export interface Istiod {
  readonly grpcPort: number;
  readonly monitoringPort: number;
  readonly httpPort: number;
  /** Everything that /ready asks for. */
  readonly ready: boolean;
  /** Proxies are asked to go elsewhere, the lease is let go, ports close. */
  close(): Promise<void>;
}

const LEASE_NAME = 'istio-leader';
const MAX_UNANSWERED = 10_000;

/** Resolves when all ports are open; ready comes later, when the cluster has been read. @throws Error naming a taken port or a bad CA */
export async function startIstiod({ settings, api, clock, random, log }: IstiodOptions): Promise<Istiod> {
  const startedAt = clock.monotonic();
  const stop = new AbortController();
  const signal = stop.signal;
  const world = { api, clock, random, log, signal };
  const namespace = settings.systemNamespace;
  const metrics = createMetrics({ processMetrics: true });
  const missing = new Set(['cluster', 'ports']);

  const ca = await CaKeeper.open({
    ...world,
    namespace,
    trustDomain: settings.trustDomain,
    directory: settings.rootCaDirectory,
    rootLifetimeMs: settings.rootCertificateMs,
    onChange: () => rootChanged(),
  });
  const authority = () => ca.current;
  const certificate = new ServingCertificate({
    authority,
    dnsNames: servingNames(settings),
    lifetimeMs: settings.defaultCertificateMs,
    clock,
    log,
  });
  const rootChanged = (): void => {
    certificate.renew();
    roots.everything();
  };

  const lease = new WriterLease({
    ...world,
    namespace,
    name: LEASE_NAME,
    identity: settings.podName,
    onAcquired: () => {
      metrics.writer.set(1);
      roots.everything();
      statuses.resume();
      gateways.everything();
    },
    onLost: () => metrics.writer.set(0),
  });
  const roots = new RootDistribution({
    ...world,
    roots: () => authority().material.rootBundlePem,
    writes: () => lease.held && configMaps.synced,
  });
  const statuses = new StatusWriter({ ...world, writes: () => lease.held, wrote: (outcome) => metrics.statusWrites.inc({ outcome }) });

  const network = settings.network || (await networkOf(api, namespace, log));
  const gateways = new GatewayDeployer({
    ...world,
    revision: settings.revision,
    image: settings.waypointImage,
    discoveryAddress: settings.discoveryAddress ?? `istiod.${namespace}.svc:15012`,
    clusterId: settings.clusterId,
    trustDomain: settings.trustDomain,
    network,
    systemNamespace: namespace,
    writes: () => lease.held && cluster.synced,
    setProblem: (gateway, problem) => publisher.setGatewayProblem(gateway, problem),
  });

  const index = new MeshIndex({
    clusterId: settings.clusterId,
    domain: settings.domain,
    rootNamespace: settings.rootNamespace ?? namespace,
    trustDomain: settings.trustDomain,
    revision: settings.revision,
    network,
  });
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
    writeStatuses: (writes) => statuses.write(writes),
  });
  const authorizer = new NodeAuthorizer(settings.trustedNodeAccounts);

  const configMaps = watchObjects<KubeObject>(api, {
    ...world,
    path: '/api/v1/configmaps',
    fieldSelector: `metadata.name=${ROOT_CONFIG_MAP}`,
    onChange: ({ type, object }) => roots.configMapChanged(object.metadata.namespace ?? '', type === 'deleted' ? undefined : object),
    onSynced: () => roots.everything(),
  });
  const cluster = watchCluster({
    ...world,
    onChange(kind, { type, object }) {
      countEvent(metrics, kind, type);
      if (kind === 'Namespace') roots.namespaceChanged(object.metadata.name ?? '', type !== 'deleted');
      if (kind === 'Gateway') gateways.gatewayChanged(object, type === 'deleted');
      if (kind === 'GatewayClass') gateways.classChanged(object, type === 'deleted');
      if (kind === 'Pod' && type !== 'deleted') authorizer.podChanged(podFacts(object));
      if (kind === 'Pod' && type === 'deleted') authorizer.podRemoved(podFacts(object));
      publisher.apply({ type, kind, object });
    },
    onSynced() {
      publisher.start();
      gateways.everything();
      missing.delete('cluster');
      metrics.startup.set((clock.monotonic() - startedAt) / 1000);
      log.info({ ...index.counts, ms: Math.round(clock.monotonic() - startedAt) }, 'cluster read');
    },
  });

  const reviewer = new TokenReviewer({
    api,
    clock,
    audiences: settings.tokenAudiences,
    reviewed: (outcome) => metrics.tokenReviews.inc({ outcome }),
  });
  const ready = (): boolean => cluster.synced && !signal.aborted;
  const reports = new ProxyReports();
  const grpc = await serveGrpc({
    port: settings.grpcPort,
    certificate,
    maxConnectionAgeMs: settings.maxConnectionAgeMs,
    clock,
    services: [
      {
        definition: adsDefinition,
        implementation: {
          deltaAggregatedResources: createAdsHandler({
            reviewer,
            storesFor: (node, caller) => {
              if (node.type === 'ztunnel') return { stores: publisher.stores };
              const gateway = `${node.namespace}/${node.gateway}`;
              const problem = gateways.notOf(gateway, caller.serviceAccount);
              return problem === undefined
                ? { stores: publisher.waypointStores(gateway) }
                : { refuse: 'PERMISSION_DENIED', message: problem };
            },
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
        implementation: { report: createDiagnosticsHandler({ reviewer, reports, log, maxProxies: settings.maxProxies }) },
      },
      {
        definition: certificateDefinition,
        implementation: {
          createCertificate: createCertificateHandler({
            reviewer,
            authorizer,
            authority,
            ready,
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

  const endpoints = {
    metrics,
    proxies,
    reports,
    index,
    trusted: async (token: string) => {
      const verdict = token === '' ? undefined : await reviewer.review(token);
      return verdict !== undefined && 'caller' in verdict && verdict.caller.namespace === namespace;
    },
    missing: () => [...missing, ...(missing.has('cluster') ? cluster.missing : []), ...(signal.aborted ? ['shutting down'] : [])],
    refreshMetrics() {
      const now = clock.now();
      const { rootNotAfter, signerNotAfter } = authority();
      metrics.rootExpiryTimestamp.set(rootNotAfter / 1000);
      metrics.rootExpirySeconds.set((rootNotAfter - now) / 1000);
      metrics.chainExpiryTimestamp.set(signerNotAfter / 1000);
      metrics.chainExpirySeconds.set((signerNotAfter - now) / 1000);
      metrics.uptime.set((clock.monotonic() - startedAt) / 1000);
    },
  };
  const monitoring = await serveHttp({
    name: 'monitoring',
    addresses: [anyAddress()],
    port: settings.monitoringPort,
    log,
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
  void lease.run();
  log.info({ grpc: grpc.port, monitoring: monitoring.port, readiness: readiness.port }, 'istiod started');

  return {
    grpcPort: grpc.port,
    monitoringPort: monitoring.port,
    httpPort: readiness.port,
    get ready() {
      return endpoints.missing().length === 0;
    },
    async close() {
      const released = lease.release();
      stop.abort(new Error('istiod is shutting down'));
      publisher.stop();
      certificate.close();
      ca.close();
      proxies.drain('istiod is shutting down; connect to another replica');
      await Promise.all([released, grpc.close(settings.drainMs), monitoring.close(), readiness.close()]);
      api.close();
    },
  };
}

function servingNames({ systemNamespace: namespace, customHost }: IstiodSettings): string[] {
  return [...new Set([`istiod.${namespace}.svc`, `istiod-remote.${namespace}.svc`, `istio-pilot.${namespace}.svc`, ...customHost])];
}

/** The label on istiod's namespace; none where it cannot be read, since a cluster of one network needs none. */
async function networkOf(api: KubeApi, namespace: string, log: Log): Promise<string> {
  try {
    const { metadata } = await api.get<KubeObject>(`/api/v1/namespaces/${namespace}`);
    return metadata.labels?.[names.NETWORK] ?? '';
  } catch (error) {
    log.warn({ namespace, error: errorMessage(error) }, 'the network could not be read from the namespace');
    return '';
  }
}
