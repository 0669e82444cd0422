/** What waypoints carry out of routes, traffic settings and telemetry, rule by rule. */
import type { Condition } from './conditions.ts';
import {
  byCondition,
  type CoverageView,
  eachRule,
  inPart,
  type Judge,
  narrowed,
  nowhere,
  type RuleCoverage,
  together,
  type Verdict,
} from './coverage-view.ts';
import { readDestinationRule } from './destination-rule.ts';
import { type Outcome, type RulePart, unusable } from './host-translation.ts';
import { readRoute } from './http-route.ts';
import { at, isRecord, records, text } from './objects.ts';
import { readersOf } from './route-status.ts';
import { parentGateway, parentSource, type Route, type RouteKind } from './routes.ts';
import { readTelemetry } from './telemetry.ts';
import { readVirtualService, type VirtualService } from './virtual-service.ts';

const silent = (): void => undefined;

/** A route of the Gateway API: each rule at all the services that it is attached to. */
export const routeRules =
  (kind: RouteKind): Judge =>
  (view, object) => {
    const said: string[] = [];
    const route = readRoute(kind, object, (message, weight) => void (weight === 'mild' || said.push(message)));
    if (!route) return [];
    const parents = route.parents.filter((parent) => parentSource(parent) !== undefined);
    const services = parents.flatMap((parent) => view.servicesOfSource(parentSource(parent) ?? ''));
    return eachRule(object, 'rules', (item, rule) => {
      const found = route.rules[Number(/\[(\d+)\]/.exec(rule)?.[1])];
      if (item === undefined || !found) return { rule, services, ...nowhere('it has no rules') };
      const unread = said.filter((message) => message.startsWith(`${found.name}: `)).map((message) => message.slice(found.name.length + 2));
      return { rule, services, ...routeVerdict(view, { ...route, rules: [found] }, parents, unread) };
    });
  };

function routeVerdict(view: CoverageView, route: Route, parents: Route['parents'], unread: readonly string[]): Verdict {
  if (parents.length === 0) return notOfTheMesh(view, route);
  const statuses = view.translation.routes.status(route);
  return together(
    parents.map((parent, i): Verdict => {
      const source = parentSource(parent) ?? '';
      const conditions = statuses[i]?.conditions ?? [];
      const condition = (type: string): Condition | undefined => conditions.find((one) => one.type === type);
      const [accepted, resolved, read] = [condition('Accepted'), condition('ResolvedRefs'), condition('ResolvedWaypoints')];
      const service = view.inputs.services.get(source);
      if (!service || !accepted || !resolved)
        return nowhere(`NoMatchingParent: there is no ${parent.kind} ${parent.namespace}/${parent.name}`);
      const waypoints = view.translation.bindings.waypointsOf(source);
      const readers = readersOf(route, { namespace: service.namespace, waypoints });
      if (readers.length === 0) return nowhere(read?.message ?? 'no waypoint reads it');
      const wrong = [
        ...(accepted.status === 'True' ? [] : [accepted.message]),
        ...(resolved.status === 'True' ? [] : [`${resolved.message}: its share of requests is refused`]),
        ...unread,
      ];
      if (wrong.length > 0) return inPart(readers, inItsPlace(wrong.join('; '), route.rules));
      return { enforced: 'waypoint', at: readers, because: read?.message ?? '' };
    }),
  );
}

/** The line is the rule's, so that its name need not be said again. */
const inItsPlace = (text: string, rules: readonly { readonly name: string }[]): string =>
  rules.reduce((said, { name }) => said.replaceAll(`${name} `, 'it '), text);

function notOfTheMesh(view: CoverageView, route: Route): Verdict {
  const [waypoint] = view.translation.routes.waypointParents(route);
  if (waypoint !== undefined)
    return nowhere(`Gateway ${waypoint} is a waypoint: a route has no effect there, it attaches to the services behind it`);
  const others = route.parents.flatMap((parent) => parentGateway(parent) ?? `${parent.kind} ${parent.namespace}/${parent.name}`);
  if (others.length === 0) return nowhere('it has no parentRefs');
  return { enforced: 'elsewhere', at: [], because: `its parent ${others.join(', ')} is not the mesh's to serve` };
}

export const virtualRules: Judge = (view, object) => {
  const virtual = readVirtualService(view.config, object, silent);
  if (!virtual) return [];
  const services = virtual.hosts
    .flatMap((host) => view.inputs.claims.servicesOfHost(host))
    .map(({ namespace, hostname }) => `${namespace}/${hostname}`);
  const line = (rule: string, verdict: Verdict): RuleCoverage => ({ rule, services, ...verdict });
  const lines = [
    ...virtual.http.map((rule, i) => line(`http[${i}]`, virtualVerdict(view, { ...virtual, http: [rule], connections: [] }))),
    ...(['tls', 'tcp'] as const).flatMap((kind) =>
      records(at(object, 'spec', kind)).map((_, i) => {
        const connections = virtual.connections.filter(({ name }) => name === `VirtualService ${virtual.key} ${kind} rule ${i}`);
        return line(`${kind}[${i}]`, virtualVerdict(view, { ...virtual, http: [], connections }));
      }),
    ),
  ];
  return lines.length > 0 ? lines : [line('', nowhere('it has no rules'))];
};

function virtualVerdict(view: CoverageView, virtual: VirtualService): Verdict {
  const { hosts } = view.translation;
  const [rule] = virtual.http;
  if (virtual.mesh && virtual.connections.length === 0 && (!rule || (rule.matches.length === 0 && rule.unreadable.length === 0)))
    return nowhere('none of its matches is for the mesh, or can be read');
  if (virtual.mesh && virtual.hosts.length === 0) return delegateVerdict(view, virtual);
  const outcomes = hosts.virtualOutcomes(virtual);
  const waypoints = [...new Set(outcomes.flatMap((outcome) => outcome.waypoints))];
  const [lost] = hosts.delegateProblems(virtual);
  if (lost !== undefined) return nowhere(inItsPlace(lost, virtual.http));
  const condition = hosts.virtualServiceCondition(virtual);
  return byCondition({ ...condition, message: inItsPlace(condition.message, virtual.http) }, waypoints);
}

/** It counts where others that delegate to it do. */
function delegateVerdict(view: CoverageView, virtual: VirtualService): Verdict {
  const { hosts } = view.translation;
  const roots = view.inputs.hosts.mentioning(`delegate ${virtual.key}`);
  if (roots.length === 0) return nowhere('it has no hosts, and no VirtualService delegates to it');
  const problems = [...unusable(virtual).map((problem) => inItsPlace(problem, virtual.http)), ...hosts.missingDestinations(virtual)];
  const verdict = together(
    roots.map((root) => {
      const delegating = { ...root, http: root.http.filter(({ delegate }) => delegate === virtual.key), connections: [] };
      const own = virtualVerdict(view, delegating);
      return { ...own, because: `VirtualService ${root.key} delegates to it: ${own.because}` };
    }),
  );
  return problems.length > 0 && verdict.enforced === 'waypoint' ? inPart(verdict.at, [...problems, verdict.because].join('; ')) : verdict;
}

/** A DestinationRule: each of its settings, of its ports and of its subsets. */
export const destinationRules: Judge = (view, object) => {
  const whole = readDestinationRule(view.config, object, silent);
  if (!whole) return [];
  const { hosts } = view.translation;
  const services = view.inputs.claims.servicesOfHost(whole.host).map(({ namespace, hostname }) => `${namespace}/${hostname}`);
  const written = at(object, 'spec', 'trafficPolicy');
  const judge = (
    rule: string,
    spec: Readonly<Record<string, unknown>>,
    part: RulePart,
    counts: (problem: string) => boolean = () => true,
  ) => {
    const read = readDestinationRule(view.config, narrowed(object, { ...NOTHING, ...spec }), silent) ?? whole;
    const problems = [...read.problems.filter(counts), ...hosts.credentialProblems(read)];
    return { rule, services, ...outcomesVerdict(hosts.ruleOutcomes(whole, part), problems) };
  };
  const lines: RuleCoverage[] = [];
  if (isRecord(at(object, 'spec', 'workloadSelector')))
    lines.push({ rule: 'workloadSelector', services, ...nowhere('waypoints are selected by the service that they stand before') });
  for (const [field, setting] of isRecord(written) ? Object.entries(written) : []) {
    const rule = `trafficPolicy.${field}`;
    if (field === 'portLevelSettings') {
      for (const [i, port] of records(setting).entries())
        lines.push(judge(`${rule}[${i}]`, { trafficPolicy: { portLevelSettings: [port] } }, 'policy'));
    } else if (!SETTINGS.has(field)) lines.push({ rule, services, ...nowhere('no waypoint knows this setting') });
    else {
      // What is said of localities depends on what is said of outliers.
      const beside = field === 'loadBalancer' ? { outlierDetection: at(written, 'outlierDetection') } : {};
      const own = (problem: string): boolean => field === 'outlierDetection' || !problem.startsWith('outlierDetection.');
      lines.push(judge(rule, { trafficPolicy: { ...beside, [field]: setting } }, 'policy', own));
    }
  }
  const seen = new Set<string>();
  for (const [i, subset] of records(at(object, 'spec', 'subsets')).entries()) {
    const rule = `subsets[${i}]`;
    const name = text(subset.name);
    if (seen.has(name)) lines.push({ rule, services, ...nowhere(`subset ${name} is there twice; the first one counts`) });
    else if (!hosts.isSubsetUsed(whole, name)) lines.push({ rule, services, ...nowhere(`no VirtualService sends to subset ${name}`) });
    else lines.push(judge(rule, { subsets: [subset] }, { subset: name }));
    seen.add(name);
  }
  return lines.length > 0 ? lines : [{ rule: '', services, ...nowhere('it says nothing') }];
};

const NOTHING = { trafficPolicy: undefined, subsets: undefined, workloadSelector: undefined };
const SETTINGS: ReadonlySet<string> = new Set([
  'loadBalancer',
  'connectionPool',
  'outlierDetection',
  'tls',
  'proxyProtocol',
  'retryBudget',
  'tunnel',
]);

function outcomesVerdict(outcomes: readonly Outcome[], problems: readonly string[]): Verdict {
  const verdict = together(
    outcomes.map(({ ok, reason, message, waypoints }): Verdict => {
      return ok ? { enforced: 'waypoint', at: waypoints, because: message } : nowhere(`${reason}: ${message}`);
    }),
  );
  if (problems.length === 0 || verdict.enforced === 'nowhere') return verdict;
  return inPart(verdict.at, [...new Set(problems), verdict.because].join('; '));
}

/** A Telemetry: each of its parts. */
export const telemetryRules: Judge = (view, object) => {
  const { telemetry } = view.translation;
  const lines = (['metrics', 'accessLogging', 'tracing'] as const).flatMap((field) =>
    records(at(object, 'spec', field)).map((part, i): RuleCoverage => {
      const read = readTelemetry(narrowed(object, { metrics: undefined, accessLogging: undefined, tracing: undefined, [field]: [part] }));
      const rule = `${field}[${i}]`;
      if (!read) return { rule, services: [], ...nowhere('could not be read') };
      const condition = telemetry.condition(read);
      const verdict = byCondition(
        { ...condition, message: condition.message.replaceAll(`${field}[0]`, rule) },
        telemetry.waypointsFor(read),
      );
      // Of a part that is for callers' proxies nothing is left.
      const gone = read[field].length === 0 && verdict.enforced === 'in part';
      return { rule, services: [], ...(gone ? nowhere(verdict.because) : verdict) };
    }),
  );
  return lines.length > 0 ? lines : [{ rule: '', services: [], ...nowhere('it says nothing') }];
};
