/** What a route's status says about each parent in the mesh (Istio, pilot/pkg/config/kube/gateway), in the words of the Gateway API. */
import type { Condition } from './conditions.ts';
import * as names from './names.ts';
import type { BackendProblem, Backends } from './route-backends.ts';
import { type ParentReference, parentSource, type Route, ruleReferences } from './routes.ts';

/** One entry of `status.parents`. */
export interface RouteParentStatus {
  readonly parentRef: Readonly<Record<string, unknown>>;
  readonly controllerName: string;
  readonly conditions: readonly Condition[];
}

export interface RouteStatusView {
  readonly backends: Backends;
  /** A Service or ServiceEntry by `Kind/namespace/name`, with the waypoints that read its routes. */
  parent(source: string): { readonly namespace: string; readonly waypoints: readonly string[] } | undefined;
}

/** @returns nothing for parents that are no part of the mesh */
export function routeStatus(route: Route, view: RouteStatusView): RouteParentStatus[] {
  const resolved = resolvedRefs(route, view.backends);
  return route.parents.flatMap((parent) => {
    const source = parentSource(parent);
    if (source === undefined) return [];
    const found = view.parent(source);
    const conditions = [accepted(route, parent, found !== undefined), resolved, waypoints(route, parent, found)];
    return [
      {
        parentRef: parent.written,
        controllerName: names.ROUTE_CONTROLLER,
        conditions: conditions.map((condition) => ({ ...condition, observedGeneration: route.generation })),
      },
    ];
  });
}

function accepted(route: Route, { kind, namespace, name }: ParentReference, found: boolean): Condition {
  const condition = (status: 'True' | 'False', reason: string, message: string): Condition => ({
    type: 'Accepted',
    status,
    reason,
    message,
  });
  if (!found) return condition('False', 'NoMatchingParent', `there is no ${kind} ${namespace}/${name}`);
  const problems = route.rules.flatMap(({ name: rule, unsupported, unreadable }) => [
    ...(unsupported.length > 0 ? [`${rule} answers 500, as waypoints do not support ${unsupported.join(', ')}`] : []),
    ...(unreadable.length > 0 ? [`${rule} is left without matches that cannot be read: ${unreadable.join(', ')}`] : []),
  ]);
  if (problems.length > 0) return condition('False', 'UnsupportedValue', shortened(problems));
  return condition('True', 'Accepted', 'the route is valid');
}

function resolvedRefs(route: Route, backends: Backends): Condition {
  const problems = route.rules.flatMap((rule) =>
    ruleReferences(rule).flatMap((reference) => backends.resolve(reference, route).problem ?? []),
  );
  const condition = (status: 'True' | 'False', reason: string, message: string): Condition => ({
    type: 'ResolvedRefs',
    status,
    reason,
    message,
  });
  // A kind that means nothing is the route's own fault; a backend that is missing may still come.
  const first: BackendProblem | undefined = problems.find(({ reason }) => reason === 'InvalidKind') ?? problems[0];
  if (!first) return condition('True', 'ResolvedRefs', 'all references are resolved');
  return condition('False', first.reason, shortened([...new Set(problems.map(({ message }) => message))]));
}

/** Always true: it is the message that says whether anybody reads the route. */
function waypoints(
  route: Route,
  { kind, namespace, name }: ParentReference,
  found: { readonly namespace: string; readonly waypoints: readonly string[] } | undefined,
): Condition {
  return {
    type: 'ResolvedWaypoints',
    status: 'True',
    reason: 'ResolvedWaypoints',
    message: waypointsMessage(route, `${kind} ${namespace}/${name}`, found),
  };
}

function waypointsMessage(
  route: Route,
  place: string,
  found: { readonly namespace: string; readonly waypoints: readonly string[] } | undefined,
): string {
  if (!found) return 'the parent is not there';
  if (found.waypoints.length === 0) {
    return `neither ${place} nor its namespace names a waypoint (istio.io/use-waypoint) that takes it, so the route has no effect on ambient clients`;
  }
  const readers = readersOf(route, found);
  if (readers.length === 0) {
    return `waypoints read routes of the namespace of ${place} and of their own only, so this one has no effect on ambient clients`;
  }
  return `read by waypoint ${readers.join(' and ')}`;
}

/** Waypoints that read it: those of a parent in the route's own namespace, or that are themselves of the route's. */
export const readersOf = (
  route: Pick<Route, 'namespace'>,
  parent: { readonly namespace: string; readonly waypoints: readonly string[] },
): string[] => parent.waypoints.filter((key) => route.namespace === parent.namespace || key.startsWith(`${route.namespace}/`));

// The API server takes 32 KiB of a message.
const LONGEST = 2000;

function shortened(sentences: readonly string[]): string {
  const joined = sentences.join('; ');
  return joined.length > LONGEST ? `${joined.slice(0, LONGEST - 3)}...` : joined;
}
