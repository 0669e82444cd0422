/** What `meshctl status` says about what is bypassed. Pure. */
import type { KubeObject } from '../../common/client/kube-api.ts';
import { BYPASS, BYPASSED, wayBack } from '../bypass/scope.ts';
import { podSpec } from './enrolment.ts';

/** One of the report's problems. */
export interface BypassProblem {
  readonly severity: 'error';
  readonly object: string;
  readonly message: string;
}

interface Seen {
  readonly systemNamespace: string;
  readonly namespaces: readonly KubeObject[];
  readonly nodes: readonly KubeObject[];
  readonly pods: readonly KubeObject[];
}

const MEANING = 'is bypassed: plaintext, and no policy of the mesh holds';

/** An error each: what somebody protects with the mesh is not protected. */
export function bypassProblems({ systemNamespace, namespaces, nodes, pods }: Seen): BypassProblem[] {
  const problem = (object: string, way: string): BypassProblem => ({
    severity: 'error',
    object,
    message: `${MEANING}; the way back: ${way}`,
  });
  const is = (object: KubeObject, value: string): boolean => object.metadata.annotations?.[BYPASS] === value;
  const name = ({ metadata }: KubeObject): string => metadata.name ?? '';
  const byHand = new Set(
    pods.filter(({ metadata }) => metadata.annotations?.[BYPASSED] === 'by hand').map((pod) => podSpec(pod).nodeName ?? ''),
  );
  return [
    ...namespaces
      .filter((namespace) => name(namespace) === systemNamespace && is(namespace, 'cluster'))
      .map(() => problem('the cluster', wayBack('cluster', ''))),
    ...nodes.filter((node) => is(node, 'true')).map((node) => problem(`node ${name(node)}`, wayBack('node', name(node)))),
    ...[...byHand].map((node) => problem(`node ${node}`, wayBack('by hand', node))),
    ...namespaces
      .filter((namespace) => is(namespace, 'true'))
      .map((namespace) => problem(`namespace ${name(namespace)}`, wayBack('namespace', name(namespace)))),
  ];
}

/** Its agent has taken it out; the bypass is the one thing to say about it. */
export const isBypassed = ({ metadata }: KubeObject): boolean => metadata.annotations?.[BYPASSED] !== undefined;
