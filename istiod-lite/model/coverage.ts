/**
 * Where each rule of an object is enforced, and because of what: at the nodes of the pods that it is for, at waypoints, or nowhere. Each rule is read
 * alone and judged by the functions that the object's status comes from, so that coverage cannot say anything else than a status, only more of it.
 */
import { errorMessage } from '../../common/base/errors.ts';
import { connectionRules, modeRules, requiredWaypointRules } from './coverage-node.ts';
import { limitRules, tlsRules, tokenRules, waypointPolicyRules } from './coverage-policies.ts';
import { destinationRules, routeRules, telemetryRules, virtualRules } from './coverage-traffic.ts';
import { CoverageView, type Judge, nowhere, type RuleCoverage } from './coverage-view.ts';
import type { FindingsWorld } from './findings.ts';
import * as names from './names.ts';
import { type Labels, readMeta } from './objects.ts';
import { hasTargets } from './request-authentication.ts';
import { whyUnenforced } from './unenforced-kinds.ts';
import { allKinds, isUnenforced, type KindName } from './watched-kinds.ts';

const judges: Readonly<Partial<Record<KindName, Judge>>> = {
  AuthorizationPolicy: (view, object) => (hasTargets(object) ? waypointPolicyRules(view, object) : connectionRules(view, object)),
  PeerAuthentication: modeRules,
  RequestAuthentication: tokenRules,
  RateLimitPolicy: limitRules,
  HTTPRoute: routeRules('HTTPRoute'),
  GRPCRoute: routeRules('GRPCRoute'),
  TCPRoute: routeRules('TCPRoute'),
  TLSRoute: routeRules('TLSRoute'),
  VirtualService: virtualRules,
  DestinationRule: destinationRules,
  BackendTLSPolicy: tlsRules,
  Telemetry: telemetryRules,
  Namespace: requiredWaypointRules,
  Pod: requiredWaypointRules,
};

/** Kinds whose objects have rules, in the order in which people ask for them; those that nothing is made from come last. */
export const coveredKinds: readonly KindName[] = [
  ...(Object.keys(judges) as KindName[]),
  ...(Object.keys(allKinds) as KindName[]).filter((kind) => isUnenforced(kind)),
];

/** The mesh as it is at one moment; what it takes to look things up is made once. */
export class Coverage {
  readonly #view: CoverageView;

  constructor(world: FindingsWorld) {
    this.#view = new CoverageView(world);
  }

  /** Pods that have rules of their own, as objects: there are many pods, and few of these. */
  *pods(): Generator<{ readonly metadata: { readonly namespace: string; readonly name: string; readonly annotations: Labels } }> {
    for (const { namespace, name, waypointWords } of this.#view.inputs.pods.values()) {
      if (waypointWords?.required !== true) continue;
      const annotations = { [names.REQUIRE_WAYPOINT]: 'true', [names.REQUIRE_WAYPOINT_EXCEPT_PORTS]: waypointWords.exceptPorts.join(',') };
      yield { metadata: { namespace, name, annotations } };
    }
  }

  /** Never throws for what somebody wrote into an object. @returns a line for each rule; none where the object has none */
  of(kind: KindName, object: unknown): RuleCoverage[] {
    if (!readMeta(object)) return [];
    if (isUnenforced(kind)) {
      const [group = ''] = allKinds[kind].apiVersion.split('/');
      return [{ rule: '', services: [], ...nowhere(whyUnenforced[`${kind}.${group}`] ?? 'nothing here carries it out') }];
    }
    try {
      return judges[kind]?.(this.#view, object) ?? [];
    } catch (error) {
      return [{ rule: '', services: [], ...nowhere(`could not be read: ${errorMessage(error)}`) }];
    }
  }
}
