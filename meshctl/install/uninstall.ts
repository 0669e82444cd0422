/**
 * `meshctl uninstall`: in the order in which no pod loses its network. The node agent goes first, while it still has its rights, and takes its
 * rules out of every pod; then ztunnel, whom nobody is redirected to any more; then istiod and what it made. What users wrote stays.
 */
import type { Clock } from '../../common/base/clock.ts';
import { KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { type Finding, failure, findingLine, warning } from '../check/finding.ts';
import { enrolledPods, podSpec } from '../status/enrolment.ts';
import { plural } from '../terminal.ts';
import { find, type InstallApi, pause } from './apply.ts';
import { installedObjects } from './inventory.ts';
import { INSTALLATION, objectPath, titleOf } from './kinds.ts';
import { type Leftover, leftovers, type PurgeOptions, strangersIn, userObjects } from './leftovers.ts';
import { createProgress, type Output, type Progress } from './progress.ts';

export interface UninstallWork extends PurgeOptions {
  readonly api: InstallApi;
  readonly clock: Clock;
  readonly namespace: string;
  readonly dryRun: boolean;
  readonly timeoutMs: number;
  readonly out: Output;
  readonly colour: boolean;
}

const POLL_MS = 500;

/** @returns the exit status: 0 nothing is left, 1 something is that should not be */
export async function runUninstall(work: UninstallWork): Promise<number> {
  const { api, namespace, out, colour } = work;
  const installed = await installedObjects(api, namespace);
  if (installed.length === 0)
    out.write(`Nothing of Warren carries the label ${INSTALLATION}=${namespace}; looking for what may be left.\n`);
  if (work.dryRun) return dryRun(work, installed);
  const progress = createProgress(out);
  const findings: Finding[] = [...(await agentless(work, installed))];
  for (const [app, selector] of [
    ['istio-cni-node', 'k8s-app=istio-cni-node'],
    ['ztunnel', 'app=ztunnel'],
    ['istiod', 'app=istiod'],
  ] as const) {
    const workloads = installed.filter(
      ({ kind, metadata }) => (kind === 'Deployment' || kind === 'DaemonSet') && metadata.labels?.app === app,
    );
    findings.push(...(await endWorkloads(work, workloads, selector, progress)));
    if (app === 'istio-cni-node' && workloads.length > 0) findings.push(...(await stillEnrolled(work)));
  }
  const left = await leftovers(api, namespace, { ...work, staleAnnotations: !hasAgent(installed) });
  for (const each of left) await removeLeftover(api, each, progress);
  const rest = installed.filter((object) => object.kind !== 'Namespace' && object.kind !== 'Deployment' && object.kind !== 'DaemonSet');
  for (const object of rest.reverse()) {
    await gone(api, objectPath(object));
    progress.note(`✔ ${titleOf(object)} deleted`);
  }
  findings.push(...(await removeNamespace(work, progress)));
  progress.show([]);
  for (const finding of findings) out.write(`${findingLine(finding, colour)}\n`);
  const release = installed.map(({ metadata }) => metadata.annotations?.['meta.helm.sh/release-name']).find((name) => name);
  if (release) out.write(`Helm still has its record of the release: helm uninstall ${release} -n ${namespace}\n`);
  for (const line of await userObjects(api)) out.write(`stays: ${line}\n`);
  const failed = findings.some(({ severity }) => severity === 'error');
  out.write(failed ? 'Warren is uninstalled, but for what is said above.\n' : 'Warren is uninstalled.\n');
  return failed ? 1 : 0;
}

async function dryRun({ api, namespace, out, ...purge }: UninstallWork, installed: readonly KubeObject[]): Promise<number> {
  const titles = [
    ...installed.filter(({ kind }) => kind !== 'Namespace').map(titleOf),
    ...(await leftovers(api, namespace, { ...purge, staleAnnotations: !hasAgent(installed) })).map(({ title }) => title),
  ];
  for (const title of titles) out.write(`${title}: would be deleted\n`);
  for (const line of await userObjects(api)) out.write(`stays: ${line}\n`);
  out.write('Nothing was changed: this was a dry run.\n');
  return 0;
}

const hasAgent = (installed: readonly KubeObject[]): boolean =>
  installed.some(({ kind, metadata }) => kind === 'DaemonSet' && metadata.labels?.app === 'istio-cni-node');

interface Status {
  readonly conditions?: readonly { readonly type: string; readonly status: string }[];
}

/** Where no agent is at work nobody takes the rules out of the pods; better known before than after. */
async function agentless({ api, namespace }: UninstallWork, installed: readonly KubeObject[]): Promise<Finding[]> {
  if (!hasAgent(installed)) return [];
  const [agents, pods] = await Promise.all([
    api.list<KubeObject>(`/api/v1/namespaces/${namespace}/pods`, { labelSelector: 'k8s-app=istio-cni-node' }),
    api.list<KubeObject>('/api/v1/pods'),
  ]);
  const isReady = ({ status }: KubeObject): boolean =>
    ((status ?? {}) as Status).conditions?.some(({ type, status: value }) => type === 'Ready' && value === 'True') ?? false;
  const working = new Set(agents.filter(isReady).map((pod) => podSpec(pod).nodeName));
  const nodes = new Set(enrolledPods(pods).flatMap((pod) => podSpec(pod).nodeName ?? []));
  return [...nodes]
    .filter((node) => !working.has(node))
    .map((node) =>
      warning(
        `node ${node}`,
        'its agent was not at work, so its rules and CNI configuration may be left',
        'restart its pods, or run meshctl bypass there',
      ),
    );
}

async function endWorkloads(
  { api, clock, namespace, timeoutMs }: UninstallWork,
  workloads: readonly KubeObject[],
  labelSelector: string,
  progress: Progress,
): Promise<Finding[]> {
  for (const workload of workloads) await gone(api, objectPath(workload));
  if (workloads.length === 0) return [];
  const title = workloads.map(titleOf).join(', ');
  const deadline = clock.monotonic() + timeoutMs;
  for (;;) {
    const pods = await api.list<KubeObject>(`/api/v1/namespaces/${namespace}/pods`, { labelSelector });
    if (pods.length === 0) break;
    progress.show([`… ${title}: ${plural(pods.length, 'pod')} still there`]);
    if (clock.monotonic() >= deadline) {
      progress.show([]);
      return pods.map((pod) =>
        failure(
          titleOf({ ...pod, kind: 'Pod' }),
          `on ${podSpec(pod).nodeName ?? 'no node'} does not end`,
          'is its node there? kubectl delete pod --force once it is known to be gone',
        ),
      );
    }
    await pause(clock, POLL_MS);
  }
  progress.show([]);
  progress.note(`✔ ${title} is gone`);
  return [];
}

/** The annotation is the agent's word: what still carries it still has its rules. */
async function stillEnrolled({ api }: UninstallWork): Promise<Finding[]> {
  const pods = enrolledPods(await api.list<KubeObject>('/api/v1/pods'));
  if (pods.length === 0) return [];
  const shown = pods.slice(0, 5).map(({ metadata }) => `${metadata.namespace}/${metadata.name}`);
  const more = pods.length > shown.length ? ` and ${pods.length - shown.length} more` : '';
  return [
    failure(
      'pods',
      `${shown.join(', ')}${more} were not taken out of the mesh and have no network now`,
      'restart these pods: kubectl delete pod',
    ),
  ];
}

async function removeLeftover(api: InstallApi, { title, path, patch }: Leftover, progress: Progress): Promise<void> {
  if (!patch) await gone(api, path);
  else await api.patch(path, patch, { type: 'merge' });
  progress.note(`✔ ${title} ${patch ? 'removed' : 'deleted'}`);
}

/** Ours by its label, and empty: somebody may have put something of his own there. */
async function removeNamespace({ api, clock, namespace, timeoutMs }: UninstallWork, progress: Progress): Promise<Finding[]> {
  const found = await find<KubeObject>(api, `/api/v1/namespaces/${namespace}`);
  if (!found || found.metadata.labels?.[INSTALLATION] !== namespace) return [];
  const strangers = await strangersIn(api, namespace);
  if (strangers.length > 0) {
    const shown = strangers.slice(0, 4).join(', ');
    const more = strangers.length > 4 ? ` and ${strangers.length - 4} more` : '';
    return [warning(`Namespace ${namespace}`, `stays, since it has ${shown}${more}`, `kubectl delete namespace ${namespace}`)];
  }
  const path = `/api/v1/namespaces/${namespace}`;
  await gone(api, path);
  const deadline = clock.monotonic() + timeoutMs;
  while ((await find(api, path)) !== undefined) {
    progress.show([`… Namespace ${namespace}: is being deleted`]);
    if (clock.monotonic() >= deadline)
      return [failure(`Namespace ${namespace}`, 'is still being deleted', `kubectl get namespace ${namespace} -o yaml says what holds it`)];
    await pause(clock, POLL_MS);
  }
  progress.show([]);
  progress.note(`✔ Namespace ${namespace} deleted`);
  return [];
}

/** Deletes what may be gone already. */
async function gone(api: InstallApi, path: string): Promise<void> {
  try {
    await api.delete(path, { propagationPolicy: 'Background' });
  } catch (error) {
    if (!(error instanceof KubeApiError && error.status === 404)) throw error;
  }
}
