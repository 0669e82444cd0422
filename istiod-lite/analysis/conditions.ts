/** Conditions that say in an object's status that something is wrong with it, whoever wrote them (Istio, pkg/config/analysis/analyzers/conditions). */
import { WAYPOINT_ACCEPTED, WAYPOINT_BOUND, ZTUNNEL_ACCEPTED } from '../model/conditions.ts';
import { at, records, text } from '../model/objects.ts';
import type { SetCheck } from './analyzer.ts';
import { message } from './messages.ts';
import { watchedKind } from './object-set.ts';

const POLICY = [WAYPOINT_ACCEPTED, ZTUNNEL_ACCEPTED];
const GATEWAY_API = ['Accepted', 'Programmed', 'ResolvedRefs'];

const TYPES: Readonly<Record<string, readonly string[]>> = {
  Service: [WAYPOINT_BOUND],
  ServiceEntry: [WAYPOINT_BOUND],
  WorkloadEntry: [WAYPOINT_BOUND],
  AuthorizationPolicy: POLICY,
  RequestAuthentication: POLICY,
  VirtualService: POLICY,
  DestinationRule: POLICY,
  Telemetry: POLICY,
  Gateway: GATEWAY_API,
  GatewayClass: GATEWAY_API,
  HTTPRoute: GATEWAY_API,
  GRPCRoute: GATEWAY_API,
  TCPRoute: GATEWAY_API,
  TLSRoute: GATEWAY_API,
  BackendTLSPolicy: GATEWAY_API,
};

export const shownConditions: SetCheck = {
  name: 'conditions.Negative',
  doc: 'conditions in the status of objects that say that something is wrong',
  *check({ set, index }) {
    for (const one of set.values()) {
      const types = Object.hasOwn(TYPES, one.kind) ? (TYPES[one.kind] ?? []) : [];
      const status = one.object.status;
      const shown = [status, ...records(at(status, 'parents')), ...records(at(status, 'ancestors')), ...records(at(status, 'listeners'))];
      const negative = shown
        .flatMap((each) => records(at(each, 'conditions')))
        .filter(({ type, status: value, reason }) => types.includes(text(type)) && (value === 'False' || reason === 'PartiallyInvalid'));
      if (negative.length === 0) continue;
      // What we have said of the object ourselves is the same thing in better words.
      const kind = watchedKind(one);
      if (kind && index.findings(kind, one.object).some((finding) => finding.kind !== 'mild')) continue;
      for (const { type, reason, message: words } of negative)
        yield message('condition', one.origin, `condition ${text(type)} says ${text(reason)}: ${text(words)}`);
    }
  },
};
