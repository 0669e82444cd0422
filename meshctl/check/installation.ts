/**
 * `meshctl check` after an installation: pieces, versions, certificates, definitions and enrolled pods, each in a line. It stands on what
 * `meshctl status` reads, and looks at what makes an installation sound rather than at what the mesh does just now.
 */
import type { Clock } from '../../common/base/clock.ts';
import { hours } from '../../common/base/clock.ts';
import type { KubeApi, KubeObject } from '../../common/client/kube-api.ts';
import { readCertificate } from '../../common/codec/x509/read-certificate.ts';
import { find } from '../install/apply.ts';
import { isOlder } from '../install/install.ts';
import { installedVersion } from '../install/inventory.ts';
import { DEFINITIONS_PATH, installKinds, titleOf } from '../install/kinds.ts';
import { rolloutOf } from '../install/rollout.ts';
import { collect } from '../status/collect.ts';
import { enrolledPods, isCandidate, isWanted } from '../status/enrolment.ts';
import { makeReport, type Observations } from '../status/report.ts';
import { plural } from '../terminal.ts';
import { type Finding, failure, ok, warning } from './finding.ts';
import { GATEWAY_API_COMMAND } from './preflight.ts';

export interface InstallationFacts {
  readonly mesh: Observations;
  /** istio-ca-root-cert, of every namespace that has it. */
  readonly roots: readonly KubeObject[];
  readonly definitions: readonly string[];
  readonly lease: KubeObject | undefined;
}

const ROOT_CONFIG_MAP = 'istio-ca-root-cert';
const LEASE = 'istio-leader';
const ROOT_WARNING_MS = hours(24 * 30);
const MAX_NAMED = 5;

/** @throws what the API server's absence throws */
export async function observeInstallation(api: KubeApi, namespace: string, clock: Clock): Promise<InstallationFacts> {
  const [mesh, roots, definitions, lease] = await Promise.all([
    collect(api, namespace, clock),
    api.list<KubeObject>('/api/v1/configmaps', { fieldSelector: `metadata.name=${ROOT_CONFIG_MAP}` }).catch(() => []),
    api.list<KubeObject>(DEFINITIONS_PATH).catch(() => []),
    find<KubeObject>(api, `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases/${LEASE}`).catch(() => undefined),
  ]);
  return { mesh, roots, definitions: definitions.map(({ metadata }) => metadata.name ?? ''), lease };
}

export function checkInstallation(facts: InstallationFacts, clientVersion: string): Finding[] {
  const { mesh } = facts;
  const workloads = [
    ...named(mesh.deployments, 'Deployment', 'istiod'),
    ...named(mesh.daemonSets, 'DaemonSet', 'istio-cni-node', 'ztunnel'),
  ];
  if (workloads.length === 0)
    return [failure('installation', `nothing is installed in namespace ${mesh.systemNamespace}`, 'meshctl install, or -i NAMESPACE')];
  return [
    ...pieces(mesh, workloads),
    ...versions(mesh, workloads, clientVersion),
    ...writer(facts),
    ...rootCertificates(facts),
    ...workloadCertificates(mesh),
    ...definitions(facts),
    ...enrolment(mesh),
    ...mesh.failures.map((what) => warning('reading', what, 'what depends on it was not checked')),
  ];
}

const named = (objects: readonly KubeObject[], kind: string, ...names: string[]): KubeObject[] =>
  objects.filter(({ metadata }) => names.includes(metadata.name ?? '')).map((object) => ({ ...object, kind }));

function pieces({ systemNamespace }: Observations, workloads: readonly KubeObject[]): Finding[] {
  const found = workloads.map((workload) => {
    const { ready, wanted, done } = rolloutOf(workload);
    const mend = `kubectl describe ${workload.kind?.toLowerCase()} -n ${systemNamespace} ${workload.metadata.name}`;
    const text = `${ready} of ${wanted} ready`;
    if (done) return ok(titleOf(workload), text);
    // One replica, or most nodes, carry the mesh on.
    return ready > 0 ? warning(titleOf(workload), text, mend) : failure(titleOf(workload), text, mend);
  });
  const missing = ['istiod', 'istio-cni-node', 'ztunnel'].filter((name) => !workloads.some(({ metadata }) => metadata.name === name));
  return [...found, ...missing.map((name) => failure(name, 'is not installed', 'meshctl upgrade, unless something else stands in for it'))];
}

function versions({ syncz }: Observations, workloads: readonly KubeObject[], client: string): Finding[] {
  const version = installedVersion(workloads.map((workload) => ({ ...workload, apiVersion: installKinds[0]?.apiVersion ?? '' })));
  if (version === undefined || version === 'unknown')
    return [warning('version', 'the installation does not say its version', 'it was not made by this program, nor by the chart')];
  const running = new Set(syncz.flatMap(({ istio_version: each }) => each ?? []));
  const others = [...running].filter((each) => each !== version);
  const found: Finding[] = [ok('version', `${version} is installed, this is meshctl ${client}`)];
  if (others.length > 0)
    found.push(
      warning(
        'version',
        `proxies of version ${others.join(', ')} are connected beside ${version}`,
        'kubectl rollout status, or meshctl upgrade',
      ),
    );
  if (isOlder(client, version))
    found.push(warning('version', `meshctl ${client} is older than what is installed`, `use meshctl ${version}`));
  else if (isOlder(version, client)) found.push(warning('version', `${version} is older than this program`, 'meshctl upgrade'));
  return found;
}

function writer({ lease, mesh }: InstallationFacts): Finding[] {
  const spec = (lease?.spec ?? {}) as { holderIdentity?: string; renewTime?: string; leaseDurationSeconds?: number };
  const stale = Date.parse(spec.renewTime ?? '') + (spec.leaseDurationSeconds ?? 30) * 2000 < mesh.nowMs;
  if (!spec.holderIdentity || stale)
    return [failure('writer', 'no replica of istiod writes to the cluster', `kubectl logs -n ${mesh.systemNamespace} deploy/istiod`)];
  return [ok('writer', spec.holderIdentity)];
}

function rootCertificates({ roots, mesh }: InstallationFacts): Finding[] {
  const system = roots.find(({ metadata }) => metadata.namespace === mesh.systemNamespace);
  const pem = (system?.data as Record<string, string> | undefined)?.['root-cert.pem'];
  if (!pem)
    return [
      failure(
        'root certificate',
        `ConfigMap ${mesh.systemNamespace}/${ROOT_CONFIG_MAP} is missing: no proxy can start`,
        'look at istiod: it writes it',
      ),
    ];
  const found = validity(pem, mesh.nowMs);
  const without = mesh.namespaces
    .filter(({ metadata }) => metadata.labels?.['istio.io/dataplane-mode'] === 'ambient' && metadata.deletionTimestamp === undefined)
    .filter(({ metadata }) => !roots.some((root) => root.metadata.namespace === metadata.name));
  const different = roots.filter((root) => (root.data as Record<string, string> | undefined)?.['root-cert.pem'] !== pem);
  if (without.length > 0)
    found.push(warning('root certificate', `it is missing in ${some(without)}: no waypoint starts there`, 'look at istiod: it writes it'));
  if (different.length > 0)
    found.push(warning('root certificate', `it is another one in ${some(different, true)}`, 'look at istiod: it keeps them equal'));
  return found;
}

function validity(pem: string, nowMs: number): Finding[] {
  const certificates = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    const ends = Math.min(...certificates.map((each) => readCertificate(each).notAfter));
    if (certificates.length === 0) throw new Error('it has no certificate');
    const date = new Date(ends).toISOString();
    if (ends < nowMs)
      return [failure('root certificate', `expired at ${date}`, 'istiod renews its own root; one of the Secret cacerts is yours to renew')];
    if (ends - nowMs < ROOT_WARNING_MS)
      return [warning('root certificate', `expires at ${date}`, 'istiod renews its own root; one of the Secret cacerts is yours to renew')];
    return [ok('root certificate', `valid until ${date}`)];
  } catch (error) {
    return [
      failure(
        'root certificate',
        `cannot be read: ${error instanceof Error ? error.message : error}`,
        'delete the ConfigMap: istiod writes it anew',
      ),
    ];
  }
}

function workloadCertificates(mesh: Observations): Finding[] {
  const holders = mesh.proxies.filter(({ certificates }) => certificates > 0);
  const expired = holders.filter(({ soonestExpiry }) => soonestExpiry * 1000 < mesh.nowMs);
  if (expired.length > 0)
    return [
      failure(
        'certificates',
        `${expired.map(({ namespace, name }) => `${namespace}/${name}`).join(', ')} holds an expired certificate`,
        'its log says why it could not renew',
      ),
    ];
  const { count, soonestExpiry } = makeReport(mesh).certificates;
  return [ok('certificates', `${count}${soonestExpiry ? `, the first expires at ${soonestExpiry}` : ''}`)];
}

function definitions({ definitions: present }: InstallationFacts): Finding[] {
  const needed = ['authorizationpolicies.security.istio.io', 'peerauthentications.security.istio.io', 'serviceentries.networking.istio.io'];
  const missing = needed.filter((name) => !present.includes(name));
  const gateway = present.includes('gateways.gateway.networking.k8s.io');
  return [
    missing.length > 0
      ? warning('definitions', `missing: ${missing.join(', ')}`, 'meshctl upgrade brings them')
      : ok('definitions', "Istio's kinds are there"),
    gateway ? ok('Gateway API', 'is there') : warning('Gateway API', 'is missing: no waypoints', GATEWAY_API_COMMAND),
  ];
}

function enrolment({ pods, namespaces }: Observations): Finding[] {
  const byName = new Map(namespaces.map((namespace) => [namespace.metadata.name ?? '', namespace]));
  const wanted = pods.filter((pod) => isCandidate(pod) && isWanted(pod, byName.get(pod.metadata.namespace ?? '')));
  const enrolled = new Set(enrolledPods(pods));
  const missing = wanted.filter((pod) => !enrolled.has(pod));
  if (wanted.length === 0) return [ok('pods', 'no namespace is in the mesh yet')];
  if (missing.length === 0) return [ok('pods', `${plural(wanted.length, 'pod')} in the mesh`)];
  return [
    failure('pods', `${missing.length} of ${plural(wanted.length, 'pod')} not in the mesh: ${some(missing)}`, 'meshctl status says why'),
  ];
}

function some(objects: readonly KubeObject[], namespaces = false): string {
  const shown = objects
    .slice(0, MAX_NAMED)
    .map(({ metadata: { namespace, name } }) => (namespaces ? namespace : namespace === undefined ? name : `${namespace}/${name}`));
  return `${shown.join(', ')}${objects.length > MAX_NAMED ? ` and ${objects.length - MAX_NAMED} more` : ''}`;
}
