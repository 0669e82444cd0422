/** `meshctl ambient enable|disable|list`: the plain label, and the wait that kubectl does not do. */
import { systemClock } from '../../common/base/clock.ts';
import type { KubeApi, KubeObject } from '../../common/client/kube-api.ts';
import { KubeApiError } from '../../common/client/kube-api.ts';
import { CommandError } from '../command-error.ts';
import { withApi } from '../session.ts';
import { DATAPLANE_MODE, enrolledPods, isCandidate, isWanted, REDIRECTION } from '../status/enrolment.ts';
import { type Connection, checkFormat, clusterError, connect, plural, print, secondsOf, table } from '../terminal.ts';

interface SetEnrolledOptions extends Connection {
  readonly namespace: string;
  readonly enrolled: boolean;
  readonly wait: boolean;
  readonly timeout: string;
}

const POLL_MS = 250;

export async function setEnrolled(options: SetEnrolledOptions): Promise<number> {
  const { namespace, enrolled } = options;
  const timeoutS = secondsOf(options.timeout, '--timeout', { least: 1, most: 86_400 });
  const api = connect(options);
  try {
    await api.patch(
      `/api/v1/namespaces/${namespace}`,
      { metadata: { labels: { [DATAPLANE_MODE]: enrolled ? 'ambient' : null } } },
      { type: 'merge' },
    );
    console.log(`namespace ${namespace}: label ${DATAPLANE_MODE} ${enrolled ? '= ambient' : 'removed'}`);
    return options.wait ? await settle(api, options, timeoutS) : 0;
  } catch (error) {
    if (error instanceof KubeApiError && error.status === 404) throw new CommandError(`namespace ${namespace} does not exist`);
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    api.close();
  }
}

async function settle(api: KubeApi, { namespace, enrolled }: SetEnrolledOptions, timeoutS: number): Promise<number> {
  const deadline = systemClock.monotonic() + timeoutS * 1000;
  for (;;) {
    const pods = (await api.list<KubeObject>(`/api/v1/namespaces/${namespace}/pods`)).filter(isCandidate);
    const inMesh = enrolledPods(pods);
    // A pod may say for itself that it stays out (or in), whatever its namespace says.
    const own = pods.filter((pod) => pod.metadata.labels?.[DATAPLANE_MODE] !== undefined);
    const waiting = pods.filter((pod) => !own.includes(pod) && inMesh.includes(pod) !== enrolled);
    if (waiting.length === 0) {
      console.log(`${plural(pods.length - own.length, 'pod')} ${enrolled ? 'in the mesh' : 'out of the mesh'}, none restarted`);
      return 0;
    }
    if (systemClock.monotonic() > deadline) {
      for (const pod of waiting) {
        const state = pod.metadata.annotations?.[REDIRECTION] ?? 'absent';
        console.error(`pod ${namespace}/${pod.metadata.name}: annotation ${REDIRECTION} is ${state}; meshctl status says more`);
      }
      return 1;
    }
    await pause(POLL_MS);
  }
}

// systemClock's timers do not keep a process alive; a command that waits must.
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Namespaces that are in the mesh, or have pods in it, with how many of their pods are. */
export async function listEnrolled(options: Connection & { readonly output: string }): Promise<number> {
  checkFormat(options.output);
  return withApi(options, async (api) => {
    const [namespaces, pods] = await Promise.all([api.list<KubeObject>('/api/v1/namespaces'), api.list<KubeObject>('/api/v1/pods')]);
    const rows = namespaces.flatMap(({ metadata }) => {
      // A waypoint's pods, and whatever else says no by its own label, are not missing.
      const own = pods.filter(
        (pod) =>
          pod.metadata.namespace === metadata.name && isCandidate(pod) && (enrolledPods([pod]).length > 0 || isWanted(pod, { metadata })),
      );
      const mode = metadata.labels?.[DATAPLANE_MODE] ?? '';
      const enrolled = enrolledPods(own).length;
      if (mode !== 'ambient' && enrolled === 0) return [];
      return [
        {
          namespace: metadata.name ?? '',
          label: mode,
          enrolled,
          pods: own.length,
          waypoint: metadata.labels?.['istio.io/use-waypoint'] ?? '',
        },
      ];
    });
    await print(rows, options.output, (width) =>
      rows.length === 0 ? 'no namespace is in the mesh (meshctl ambient enable NAMESPACE)' : enrolledTable(rows, width),
    );
    return 0;
  });
}

export interface Enrolled {
  readonly namespace: string;
  readonly label: string;
  readonly enrolled: number;
  readonly pods: number;
  readonly waypoint: string;
}

export function enrolledTable(rows: readonly Enrolled[], width: number): string {
  return table(
    ['NAMESPACE', 'LABEL', 'PODS ENROLLED', 'WAYPOINT'],
    rows.map(({ namespace, label, enrolled, pods, waypoint }) => [namespace, label || '-', `${enrolled}/${pods}`, waypoint || '-']),
    { width },
  );
}
