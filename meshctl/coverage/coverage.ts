/**
 * What istiod says of where each rule is enforced, and what proxies saw beside it: who dials the pods of a service at their own addresses
 * passes its waypoint by, and with it every rule there. Pure.
 */

/** A line of istiod's page `/debug/coverage`. */
export interface CoveredRule {
  readonly kind: string;
  /** Empty for objects of the cluster. */
  readonly namespace: string;
  readonly name: string;
  /** Where it stands in the object. */
  readonly rule: string;
  readonly enforced: 'node' | 'waypoint' | 'in part' | 'nowhere' | 'elsewhere';
  /** Gateways of waypoints, or pods, `namespace/name`: the first of them. */
  readonly at: readonly string[];
  readonly because: string;
  /** `namespace/hostname` of the services that it is about. */
  readonly services: readonly string[];
}

export interface Passed {
  /** Hostname of the service. */
  readonly service: string;
  readonly count: number;
  readonly callers: string;
}

export const isEnforced = ({ enforced }: Pick<CoveredRule, 'enforced'>): boolean => enforced !== 'in part' && enforced !== 'nowhere';

/** @param namespace whose services count; undefined for all */
export function withPassed(rules: readonly CoveredRule[], passedBy: readonly Passed[], namespace?: string): CoveredRule[] {
  const told = new Set<string>();
  const lines = rules.map((rule): CoveredRule => {
    if (rule.enforced !== 'waypoint' && rule.enforced !== 'in part') return rule;
    const passed = passedBy.filter(({ service }) => rule.services.some((key) => hostOf(key) === service));
    for (const { service } of passed) told.add(service);
    if (passed.length === 0) return rule;
    return { ...rule, enforced: 'in part', because: `${rule.because}; passed by: ${passed.map(whoText).join('; ')} (${REFUSE})` };
  });
  const others = passedBy.flatMap((passed): CoveredRule[] => {
    const [name = '', of = ''] = passed.service.split('.');
    if (told.has(passed.service) || (namespace !== undefined && of !== namespace)) return [];
    const because = `its waypoint is passed by: ${whoText(passed)} (${REFUSE})`;
    return [
      {
        kind: 'Service',
        namespace: of,
        name,
        rule: 'istio.io/use-waypoint',
        enforced: 'in part',
        at: [],
        because,
        services: [passed.service],
      },
    ];
  });
  return [...lines, ...others];
}

const REFUSE = 'warren.dev/require-waypoint refuses that';

const hostOf = (key: string): string => key.slice(key.indexOf('/') + 1);

const whoText = ({ service, callers }: Passed): string => `${callers} dialled pods of ${service}`;
