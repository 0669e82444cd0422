/** `meshctl authz POD`: every policy that its ztunnel and its waypoints have in force for it, and what each would do. */
import { placeOf } from '../explain/proxies.ts';
import { type AppliedPolicy, inFront, meaning, nodePolicies, otherwise, shortIdentities, waypointPolicies } from '../live/policies.ts';
import { withIstiod } from '../session.ts';
import { type Connection, checkFormat, print, table } from '../terminal.ts';
import { workloadOf } from './top.ts';
import { findZtunnel, idOf, ztunnelsOf } from './ztunnel-config.ts';

export interface AuthzOptions extends Connection {
  /** `POD` or `NAMESPACE/POD`. */
  readonly pod: string;
  readonly namespace: string;
  readonly output: string;
}

type Dump = Readonly<Record<string, unknown>>;

export async function authzCommand(options: AuthzOptions): Promise<number> {
  const { output, systemNamespace } = options;
  checkFormat(output);
  const [first = '', second] = options.pod.split('/', 2);
  const [namespace, name] = second === undefined ? [options.namespace, first] : [first, second];
  return withIstiod(options, async (api, istiod) => {
    const { node } = await placeOf(api, namespace, name);
    const ztunnel = await findZtunnel(api, await ztunnelsOf(api, systemNamespace), { node });
    const dump = await istiod.ofProxy<Dump>('/debug/proxy', idOf(ztunnel));
    const { services, waypoints } = inFront(dump, { namespace, name });
    // All of a Gateway's waypoints have the same.
    const asked = (await istiod.proxies()).filter(
      (proxy, i, all) =>
        proxy.kind === 'waypoint' &&
        waypoints.includes(workloadOf(proxy)) &&
        all.findIndex((other) => workloadOf(other) === workloadOf(proxy)) === i,
    );
    const policies = [
      ...nodePolicies(dump, { namespace, name }, `ztunnel of ${node}`),
      ...(
        await Promise.all(
          asked.map(async (proxy) =>
            waypointPolicies(await istiod.at<Dump>(proxy, '/debug/proxy'), services, `waypoint ${workloadOf(proxy)}`),
          ),
        )
      ).flat(),
    ];
    const places = [`ztunnel of ${node}`, ...asked.map((proxy) => `waypoint ${workloadOf(proxy)}`)];
    const silent = waypoints.filter((waypoint) => !asked.some((proxy) => workloadOf(proxy) === waypoint));
    await print(policies, output, (width) => authzText(`${namespace}/${name}`, { policies, places, silent }, width));
    return 0;
  });
}

export interface AuthzSeen {
  readonly policies: readonly AppliedPolicy[];
  /** Who enforces, whether or not there is something to enforce. */
  readonly places: readonly string[];
  /** Waypoints before the pod that do not report. */
  readonly silent: readonly string[];
}

export function authzText(pod: string, { policies, places, silent }: AuthzSeen, width: number): string {
  return [
    policies.length === 0
      ? `no policy applies to ${pod}`
      : table(
          ['ACTION', 'POLICY', 'AT', 'HOLDS FOR', 'WHAT IT DOES'],
          policies.map((policy) => [
            policy.action,
            policy.policy,
            policy.at,
            policy.because,
            width === Infinity ? meaning(policy) : shortIdentities(meaning(policy)),
          ]),
          { gap: '  ', width },
        ),
    '',
    ...places.map((place) => `at ${place}, ${otherwise(policies.filter(({ at }) => at === place))}`),
    ...silent.map((waypoint) => `waypoint ${waypoint} is before it and does not report: what it enforces is not shown`),
  ].join('\n');
}
