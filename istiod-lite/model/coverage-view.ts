/** What coverage looks things up in, and the words that its judges have in common. */
import type { Condition } from './conditions.ts';
import type { FindingsWorld } from './findings.ts';
import { Groups } from './groups.ts';
import { serviceKeyOf } from './mesh-service.ts';
import * as names from './names.ts';
import { at, isRecord, type Labels, records } from './objects.ts';
import type { PolicyTarget } from './policy-targets.ts';
import { endsTunnels } from './workload.ts';

/** `in part`: not for all that it is for, or not as it is written. `elsewhere`: other controllers' to carry out. */
export type Enforced = 'node' | 'waypoint' | 'in part' | 'nowhere' | 'elsewhere';

export interface RuleCoverage extends Verdict {
  /** Where it stands in the object: `rules[0]`, `portLevelMtls[8080]`; empty where the object has no parts. */
  readonly rule: string;
  /** `namespace/hostname` of the services that it is about, where those are few; who dials their pods passes their waypoint by. */
  readonly services: readonly string[];
}

export interface Verdict {
  readonly enforced: Enforced;
  /** Waypoints, `namespace/name` of their Gateways, or pods: the first of them. */
  readonly at: readonly string[];
  readonly because: string;
}

export type Judge = (view: CoverageView, object: unknown) => RuleCoverage[];

/** Something that policies select by label. */
export interface Member {
  /** `namespace/name` */
  readonly key: string;
  readonly namespace: string;
  readonly labels: Labels;
  /** Whether a ztunnel carries it. */
  readonly inMesh: boolean;
}

/** Of what is named one by one. */
const MOST_NAMED = 10;

/** Of what is enforced as it is written. */
export const wholly = (enforced: 'node' | 'waypoint', places: readonly string[], because: string): Verdict => ({
  enforced,
  at: places.slice(0, MOST_NAMED),
  because,
});
export const nowhere = (because: string): Verdict => ({ enforced: 'nowhere', at: [], because });
export const inPart = (places: readonly string[], because: string): Verdict => ({
  enforced: 'in part',
  at: places.slice(0, MOST_NAMED),
  because,
});

/** @param waypoints that are told */
export function byCondition({ status, reason, message }: Condition, waypoints: readonly string[]): Verdict {
  if (status !== 'True') return nowhere(`${reason}: ${message}`);
  if (reason !== 'Accepted') return inPart(waypoints, `${reason}: ${message}`);
  return wholly('waypoint', waypoints, message);
}

/** One verdict for several places: what all say, or that it is in part. */
export function together(verdicts: readonly Verdict[]): Verdict {
  const [first] = verdicts;
  if (!first) return nowhere('it is for nothing');
  const states = new Set(verdicts.map(({ enforced }) => enforced));
  const because = [...new Set(verdicts.map((one) => one.because))].join('; ');
  const places = [...new Set(verdicts.flatMap((one) => one.at))];
  return states.size === 1 ? { enforced: first.enforced, at: places.slice(0, MOST_NAMED), because } : inPart(places, because);
}

/** The object with a part of its spec only, for readers that take whole objects. */
export function narrowed(object: unknown, part: Readonly<Record<string, unknown>>): unknown {
  const spec = at(object, 'spec');
  return { ...(isRecord(object) && object), spec: { ...(isRecord(spec) && spec), ...part } };
}

/** Each item of a list of the spec, as the rule that it is; the object as a whole where the list is empty. */
export const eachRule = (
  object: unknown,
  field: string,
  judge: (item: unknown, rule: string, index: number) => RuleCoverage,
): RuleCoverage[] => {
  const items = records(at(object, 'spec', field));
  return items.length === 0 ? [judge(undefined, '', 0)] : items.map((item, i) => judge(item, `${field}[${i}]`, i));
};

export function podsText(keys: readonly string[]): string {
  const named = keys.slice(0, MOST_SAID).join(', ');
  const all = keys.length > MOST_SAID ? `${named} and ${keys.length - MOST_SAID} more` : named;
  return `${keys.length} pod${keys.length === 1 ? '' : 's'}: ${all}`;
}

const MOST_SAID = 3;

export class CoverageView {
  readonly config: FindingsWorld['config'];
  readonly inputs: FindingsWorld['inputs'];
  readonly translation: FindingsWorld['translation'];
  #members: ReadonlyMap<string, readonly Member[]> | undefined;
  #services: Groups<string> | undefined;

  constructor({ config, inputs, translation }: FindingsWorld) {
    this.config = config;
    this.inputs = inputs;
    this.translation = translation;
  }

  /** Of a namespace, or of all; a waypoint's own pods are no part of it, as what ztunnels enforce is not asked there. */
  members(namespace: string | undefined): readonly Member[] {
    this.#members ??= Map.groupBy(this.#allMembers(), (member) => member.namespace);
    return namespace === undefined ? [...this.#members.values()].flat() : (this.#members.get(namespace) ?? []);
  }

  *#allMembers(): Generator<Member> {
    for (const { key, namespace, labels, redirected, hostNetwork } of this.inputs.pods.values())
      if (!hostNetwork && labels[names.GATEWAY_NAME] === undefined)
        yield { key, namespace, labels, inMesh: redirected || endsTunnels(labels) };
    for (const { key, namespace, labels } of this.inputs.workloadEntries.values())
      yield { key, namespace, labels, inMesh: endsTunnels(labels) };
  }

  /** `namespace/hostname` of what has this waypoint. */
  servicesOf(waypoint: string): string[] {
    if (!this.#services) {
      this.#services = new Groups();
      for (const [source, { services }] of this.inputs.services)
        for (const of of this.translation.bindings.waypointsOf(source))
          for (const service of services) this.#services.add(of, serviceKeyOf(service));
    }
    return [...this.#services.of(waypoint)];
  }

  /** `namespace/hostname` of what targets mean. */
  servicesOfTargets(targets: readonly PolicyTarget[], waypoints: readonly string[]): string[] {
    const found = targets.flatMap(({ kind, namespace, name }) => {
      if (kind === 'Gateway') return this.servicesOf(`${namespace}/${name}`);
      if (kind === 'GatewayClass') return waypoints.flatMap((waypoint) => this.servicesOf(waypoint));
      return this.servicesOfSource(`${kind}/${namespace}/${name}`);
    });
    return [...new Set(found)];
  }

  servicesOfSource(source: string): string[] {
    return (this.inputs.services.get(source)?.services ?? []).map(serviceKeyOf);
  }
}
