/**
 * `meshctl bypass node|namespace|cluster`: the mesh out of the path of pods, within seconds and without restarting them, for the day on which
 * it is the problem. The annotation says what is wanted, the node agents do it, and each pod's annotations say that it is done.
 */
import { systemClock } from '../../common/base/clock.ts';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { CommandError } from '../command-error.ts';
import { podSpec, REDIRECTION } from '../status/enrolment.ts';
import { type Connection, clusterError, connect, plural, secondsOf } from '../terminal.ts';
import { BYPASS, BYPASSED, bypassOf, podsOf, type Scope, targetOf, wayBack } from './scope.ts';

export interface BypassOptions extends Connection {
  readonly scope: Scope;
  readonly undo: boolean;
  readonly wait: boolean;
  readonly timeout: string;
}

const POLL_MS = 250;

/** @returns the exit status: 0 where every pod is where it should be, 1 where some are not yet */
export async function bypass(options: BypassOptions): Promise<number> {
  const { scope, undo } = options;
  const timeoutS = secondsOf(options.timeout, '--timeout', { least: 1, most: 86_400 });
  const { path, value, label } = targetOf(scope);
  const api = connect(options);
  try {
    await api.patch(path, { metadata: { annotations: { [BYPASS]: undo ? null : value } } }, { type: 'merge' });
    console.log(undo ? `${label}: no longer bypassed` : `${label}: bypassed; the way back: ${wayBack(scope.kind, nameOf(scope))}`);
    return options.wait ? await settle(api, options, timeoutS) : 0;
  } catch (error) {
    if (error instanceof KubeApiError && error.status === 404) throw new CommandError(`${label} does not exist`);
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    api.close();
  }
}

async function settle(api: KubeApi, { scope, undo, systemNamespace }: BypassOptions, timeoutS: number): Promise<number> {
  const deadline = systemClock.monotonic() + timeoutS * 1000;
  for (;;) {
    const [pods, namespaces, nodes] = await Promise.all([
      api.list<KubeObject>('/api/v1/pods'),
      api.list<KubeObject>('/api/v1/namespaces'),
      api.list<KubeObject>('/api/v1/nodes'),
    ]);
    const concerned = podsOf(scope, pods, namespaces);
    const held = undo ? concerned.filter((pod) => bypassOf(pod, { namespaces, nodes, systemNamespace }) !== undefined) : [];
    const waiting = concerned.filter((pod) => !held.includes(pod) && !(undo ? isIn(pod) : isOut(pod)));
    if (waiting.length === 0) {
      console.log(`${plural(concerned.length - held.length, 'pod')} ${undo ? 'back in the mesh' : 'out of the mesh'}, none restarted`);
      if (!undo && concerned.length > 0) {
        console.log('until then: their traffic is in plaintext, no policy of the mesh holds for them, and STRICT workloads refuse them');
      }
      for (const text of new Set(held.map((pod) => stillHeld(pod, { namespaces, nodes, systemNamespace })))) console.error(text);
      return held.length > 0 ? 1 : 0;
    }
    if (systemClock.monotonic() > deadline) {
      complain(waiting, undo);
      return 1;
    }
    // systemClock's timers do not keep a process alive; a command that waits must.
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

const isIn = ({ metadata }: KubeObject): boolean => metadata.annotations?.[REDIRECTION] === 'enabled';
/** The agent writes what bypasses a pod when nothing new is captured. */
const isOut = ({ metadata }: KubeObject): boolean =>
  metadata.annotations?.[REDIRECTION] === undefined && metadata.annotations?.[BYPASSED] !== undefined;
const nameOf = (scope: Scope): string => (scope.kind === 'cluster' ? '' : scope.name);

function stillHeld(pod: KubeObject, context: Parameters<typeof bypassOf>[1]): string {
  const by = bypassOf(pod, context) ?? 'by hand';
  const name = by === 'namespace' ? pod.metadata.namespace : podSpec(pod).nodeName;
  return `some pods stay out, bypassed ${by === 'by hand' ? 'by hand' : `with their ${by}`}: ${wayBack(by, name ?? '')}`;
}

function complain(waiting: readonly KubeObject[], undo: boolean): void {
  const byNode = Map.groupBy(waiting, (pod) => podSpec(pod).nodeName ?? '');
  for (const [node, pods] of byNode) {
    const names = pods.slice(0, 3).map(({ metadata }) => `${metadata.namespace}/${metadata.name}`);
    const more = pods.length > names.length ? ` and ${pods.length - names.length} more` : '';
    const way = undo ? 'meshctl status says more' : 'is its node agent running? Without it, on the node: /opt/cni/bin/istio-cni bypass';
    console.error(`node ${node}: ${names.join(', ')}${more} ${undo ? 'not yet in the mesh' : 'not yet out of the mesh'}; ${way}`);
  }
}
