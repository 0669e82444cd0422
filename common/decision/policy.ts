/**
 * L4 authorization (Istio's ztunnel, src/rbac.rs): does a policy that applies to the local workload refuse this connection? Pure, and the
 * same code for the data path, for re-checks of open connections, for `meshctl explain` and for rehearsal.
 */
import { cidrContains, ipBytes, type SocketAddress } from '../base/address.ts';
import type { OutcomeCode } from '../base/errors.ts';
import { formatSpiffeId, type SpiffeId } from '../base/spiffe.ts';
import { type MeshView, type Policy, type PolicyMatch, policyKey, type StringMatch, type Workload } from './mesh-view.ts';
import { type BypassView, refusesBypass, type WaypointBypass, waypointBypass } from './waypoint-bypass.ts';

/** A connection as it reached the pod. */
export interface PolicyInput {
  /** Address of the TCP peer. */
  readonly source: SocketAddress;
  /** From the peer's certificate; undefined for plaintext. */
  readonly identity: SpiffeId | undefined;
  /** The pod's address and the port that will be dialled (after an application tunnel's override). */
  readonly destination: SocketAddress;
}

/** What was decided, by what, and what the log says about it. */
export interface PolicyVerdict {
  readonly allowed: boolean;
  /** namespace/name of the policy that decided; absent where none did. */
  readonly policy?: string;
  /** For the log: why it is refused, or what allowed it. */
  readonly reason: string;
  /** Present exactly where the connection is refused. */
  readonly code?: OutcomeCode;
  /** Policies that are only rehearsed, and what they would have matched. */
  readonly dryRun: readonly { readonly policy: string; readonly matched: boolean }[];
  /** Policies that the workload names and nobody has sent: worth a warning, since what they say is not enforced. */
  readonly missing: readonly string[];
}

/** A connection as matches see it, converted once for all policies. */
export interface PolicySubject {
  /** Without `spiffe://`; undefined for plaintext. */
  readonly principal: string | undefined;
  readonly identity: SpiffeId | undefined;
  readonly sourceIp: Uint8Array;
  readonly destinationIp: Uint8Array;
  readonly destinationPort: number;
}

/** Of a mesh, what policies are looked up in. */
export type PolicyView = Pick<MeshView, 'namespacePolicies' | 'globalPolicies' | 'policyByKey'> & BypassView;

/** Converts a connection for `policyMatches`. */
export function policySubject({ source, identity, destination }: PolicyInput): PolicySubject {
  return {
    principal: identity && formatSpiffeId(identity).slice('spiffe://'.length),
    identity,
    sourceIp: ipBytes(source.ip) ?? NO_ADDRESS,
    destinationIp: ipBytes(destination.ip) ?? NO_ADDRESS,
    destinationPort: destination.port,
  };
}

/**
 * The policies in whose scope a workload is: its namespace's, the mesh's, and those that selected it. A name that the workload carries and
 * that is not known (yet) is passed over, as ztunnel does.
 */
export function applicablePolicies(view: PolicyView, local: Workload): Policy[] {
  const policies = [...view.namespacePolicies(local.namespace), ...view.globalPolicies()];
  for (const key of local.authorizationPolicies) {
    const policy = view.policyByKey(key);
    if (policy && !policies.some((other) => policyKey(other) === key)) policies.push(policy);
  }
  return policies;
}

/**
 * Any enforced DENY that matches refuses; then, where there are enforced ALLOW policies, one of them must match. Dry-run policies are
 * evaluated for the log and count for nothing. Before all of them, a pod may want to be dialled by its waypoint only.
 */
export function decidePolicy(view: PolicyView, local: Workload, input: PolicyInput): PolicyVerdict {
  const subject = policySubject(input);
  const policies = applicablePolicies(view, local);
  const dryRun = policies
    .filter((policy) => policy.dryRun)
    .map((policy) => ({ policy: policyKey(policy), matched: policyMatches(policy, subject) }));
  const missing = local.authorizationPolicies.filter((key) => view.policyByKey(key) === undefined);
  const bypass = refusesBypass(local, input.destination.port) ? waypointBypass(view, local, input) : undefined;
  if (bypass) return { allowed: false, reason: bypassReason(bypass), code: 'WAYPOINT_BYPASSED', dryRun, missing };
  const verdict = decideEnforced(
    policies.filter((policy) => !policy.dryRun),
    subject,
  );
  return { ...verdict, dryRun, missing };
}

const bypassReason = ({ waypoint }: WaypointBypass): string =>
  waypoint === undefined
    ? 'the pod takes connections from its waypoint only (warren.dev/require-waypoint), and nothing of it is bound to one'
    : `the pod takes connections from its waypoint ${waypoint} only (warren.dev/require-waypoint)`;

function decideEnforced(enforced: readonly Policy[], subject: PolicySubject): Omit<PolicyVerdict, 'dryRun' | 'missing'> {
  const denied = enforced.find((policy) => policy.action === 'DENY' && policyMatches(policy, subject));
  if (denied) {
    const policy = policyKey(denied);
    return { allowed: false, policy, reason: `explicitly denied by: ${policy}`, code: codeOf(denied, subject) };
  }
  const allows = enforced.filter((policy) => policy.action === 'ALLOW');
  const [first] = allows;
  if (!first) return { allowed: true, reason: 'no allow policies' };
  const allowed = allows.find((policy) => policyMatches(policy, subject));
  if (allowed) return { allowed: true, policy: policyKey(allowed), reason: `explicitly allowed by: ${policyKey(allowed)}` };
  const reason = 'allow policies exist, but none allowed';
  // Naming a policy is only honest where there is one: with several, none of them is the one to blame.
  if (allows.length > 1) return { allowed: false, reason: `${reason}: ${namesOf(allows)}`, code: 'POLICY_DENIED' };
  return { allowed: false, policy: policyKey(first), reason: `${reason}: ${policyKey(first)}`, code: 'POLICY_DENIED' };
}

/** Any group; all rules of it; any match of each rule, where a rule without matches holds. A policy without groups never matches. */
export function policyMatches(policy: Policy, subject: PolicySubject): boolean {
  return policy.groups.some((rules) =>
    rules.every((matches) => matches.length === 0 || matches.some((match) => matchHolds(match, subject))),
  );
}

/** All fields that are set hold. A match without any field holds never: it is what is left of a rule that L4 cannot express. */
export function matchHolds(match: PolicyMatch, subject: PolicySubject): boolean {
  const { identity, principal, sourceIp, destinationIp, destinationPort } = subject;
  return (
    fieldHolds(match.destinationPorts, match.notDestinationPorts, destinationPort, isPort) &&
    fieldHolds(match.namespaces, match.notNamespaces, identity?.namespace, isText) &&
    fieldHolds(match.principals, match.notPrincipals, principal, isText) &&
    fieldHolds(match.serviceAccounts, match.notServiceAccounts, identity, isAccount) &&
    fieldHolds(match.sourceIps, match.notSourceIps, sourceIp, cidrContains) &&
    fieldHolds(match.destinationIps, match.notDestinationIps, destinationIp, cidrContains) &&
    MATCH_FIELDS.some((field) => match[field].length > 0)
  );
}

/** Case-sensitive; `presence` holds for any text but the empty one. */
export function stringMatches(match: StringMatch, value: string): boolean {
  if ('exact' in match) return value === match.exact;
  if ('prefix' in match) return value.startsWith(match.prefix);
  if ('suffix' in match) return value.endsWith(match.suffix);
  return value !== '';
}

// Where an address is none of ours to parse, no range contains it.
const NO_ADDRESS = new Uint8Array(0);

/** A match without any field; it never holds. */
export const NO_MATCH: PolicyMatch = {
  namespaces: [],
  notNamespaces: [],
  principals: [],
  notPrincipals: [],
  sourceIps: [],
  notSourceIps: [],
  destinationIps: [],
  notDestinationIps: [],
  destinationPorts: [],
  notDestinationPorts: [],
  serviceAccounts: [],
  notServiceAccounts: [],
};

export const MATCH_FIELDS = Object.keys(NO_MATCH) as readonly (keyof PolicyMatch)[];

// The predicates are not closures over the connection: a mesh may have ten thousand rules, and each connection looks at all of them.
function fieldHolds<T, V>(wanted: readonly T[], unwanted: readonly T[], value: V, holds: (want: T, value: V) => boolean): boolean {
  if (wanted.length > 0 && !anyHolds(wanted, value, holds)) return false;
  return unwanted.length === 0 || !anyHolds(unwanted, value, holds);
}

function anyHolds<T, V>(list: readonly T[], value: V, holds: (want: T, value: V) => boolean): boolean {
  for (const want of list) if (holds(want, value)) return true;
  return false;
}

const isPort = (want: number, port: number): boolean => want === port;
const isText = (want: StringMatch, value: string | undefined): boolean => value !== undefined && stringMatches(want, value);
const isAccount = (want: { readonly namespace: string; readonly serviceAccount: string }, identity: SpiffeId | undefined): boolean =>
  identity !== undefined && want.namespace === identity.namespace && want.serviceAccount === identity.serviceAccount;

// PeerAuthentication reaches us as DENY policies with these names (Istio's ztunnel, src/rbac.rs). To a caller in plaintext they mean
// "enrol yourself", which is other advice than "ask for a policy".
const isPeerAuthentication = (policy: Policy): boolean =>
  policy.name === 'istio_converted_static_strict' || policy.name.startsWith('converted_peer_authentication_');

const codeOf = (policy: Policy, subject: PolicySubject): OutcomeCode =>
  isPeerAuthentication(policy) && subject.identity === undefined ? 'MTLS_REQUIRED' : 'POLICY_DENIED';

// A namespace may hold hundreds of policies; a log line names a few.
const NAMES_SHOWN = 5;

function namesOf(policies: readonly Policy[]): string {
  const names = policies.slice(0, NAMES_SHOWN).map(policyKey).join(', ');
  return policies.length > NAMES_SHOWN ? `${names} and ${policies.length - NAMES_SHOWN} more` : names;
}
