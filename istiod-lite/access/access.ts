/**
 * Who may call what: one table for xDS, certificates, diagnostics and debug pages. Pure; whoever answers a call asks here first. A row's
 * `check` gets a caller that has proved who it is, and says why it may not, or nothing.
 */
import { type AuthenticateOptions, type Authentication, authenticate, type CallCredentials } from './authenticate.ts';
import type { NodeVerdict } from './node-authorizer.ts';
import type { Caller } from './token-review.ts';

export interface AccessWorld {
  /** Whether the caller serves a whole node, or a host outside Kubernetes: those see the whole mesh. */
  isNode(caller: Caller): boolean;
  /** Where istiod runs: its accounts are the mesh's own. */
  readonly systemNamespace: string;
  /** Why this account is none of the Gateway's (`namespace/name`) waypoints; undefined where it is one. */
  notOfGateway(gateway: string, serviceAccount: string): string | undefined;
  /** Whether some Gateway's waypoints run as this account. */
  isWaypointAccount(namespace: string, serviceAccount: string): boolean;
  /** Whether this caller's node runs what has this identity. */
  onNodeOf(caller: Caller, identity: string): NodeVerdict;
}

/** What the call is about: as far as the row needs it. */
export interface CallSubject {
  readonly namespace?: string;
  /** `namespace/name`. */
  readonly gateway?: string;
  /** SPIFFE URI. */
  readonly identity?: string;
}

interface Row {
  /** For people: docs/control-plane.md has the same rows. */
  readonly who: string;
  readonly gets: string;
  check(world: AccessWorld, caller: Caller, subject: CallSubject): string | undefined;
}

export const accessTable = {
  'xds/ztunnel': {
    who: 'trusted node accounts (CA_TRUSTED_NODE_ACCOUNTS)',
    gets: 'all workloads, services and L4 policies',
    check: trustedNode,
  },
  'xds/waypoint': {
    who: "the service account of the Gateway's waypoints, in the Gateway's namespace",
    gets: 'what is bound to its Gateway, what its routes name, its own routes and policies',
    check: ofGateway,
  },
  'xds/debug': {
    who: 'accounts of the system namespace',
    gets: 'which proxies are connected and what they acknowledged',
    check: system,
  },
  'ca/own': {
    who: 'every service account',
    gets: 'a certificate for its own identity',
    check: () => undefined,
  },
  'ca/impersonate': {
    who: 'trusted node accounts, with the token of a pod',
    gets: "a certificate for an identity that runs on that pod's node",
    check: (world, caller, { identity = '' }) => {
      const untrusted = trustedNode(world, caller);
      if (untrusted !== undefined) return untrusted;
      const verdict = world.onNodeOf(caller, identity);
      return verdict.allowed ? undefined : verdict.reason;
    },
  },
  'diagnostics/ztunnel': {
    who: 'trusted node accounts',
    gets: 'its report shown as that of a ztunnel',
    check: trustedNode,
  },
  'diagnostics/waypoint': {
    who: 'the service account of a Gateway, in its own namespace',
    gets: 'its report shown as that of a waypoint',
    check: (world, caller, subject) => {
      if (world.isWaypointAccount(caller.namespace, caller.serviceAccount)) return ofOwnNamespace(caller, subject);
      return `no Gateway's waypoints run as ${accountOf(caller)}`;
    },
  },
  'debug/all': {
    who: "istiod's own pod (loopback), and accounts of the system namespace",
    gets: 'every debug page as a whole',
    check: system,
  },
  'debug/own': {
    who: 'every service account',
    gets: 'the rows of its own namespace on /debug/syncz, /debug/proxies, /debug/problems and /debug/coverage',
    check: (_world, caller, subject) => ofOwnNamespace(caller, subject),
  },
  'debug/journal': {
    who: 'every service account',
    gets: "recorded decisions about calls into and out of its own namespace, without the names of other namespaces' policies",
    check: (_world, caller, subject) => ofOwnNamespace(caller, subject),
  },
  'debug/rehearse': {
    who: 'every service account',
    gets: 'what objects of its own namespace would change about such decisions',
    check: (_world, caller, subject) => ofOwnNamespace(caller, subject),
  },
} as const satisfies Record<string, Row>;

export type AccessCall = keyof typeof accessTable;

/** What everything that answers calls is given. */
export interface Gate {
  authenticate(call: CallCredentials): Promise<Authentication>;
  /** Why the caller may not; undefined where it may. */
  mayNot(call: AccessCall, caller: Caller, subject?: CallSubject): string | undefined;
}

export const createGate = (options: AuthenticateOptions & { readonly world: AccessWorld }): Gate => ({
  authenticate: (call) => authenticate(call, options),
  mayNot: (call, caller, subject = {}) => accessTable[call].check(options.world, caller, subject),
});

function trustedNode(world: AccessWorld, caller: Caller): string | undefined {
  return world.isNode(caller) ? undefined : `${accountOf(caller)} is no trusted node account (CA_TRUSTED_NODE_ACCOUNTS)`;
}

function ofGateway(world: AccessWorld, caller: Caller, { gateway = '' }: CallSubject): string | undefined {
  const [namespace, name = ''] = gateway.split('/');
  if (name === '') return 'a waypoint has to say which Gateway it belongs to (metadata GATEWAY_NAME)';
  if (namespace !== caller.namespace) return `Gateway ${gateway} is not in the caller's namespace ${caller.namespace}`;
  return world.notOfGateway(gateway, caller.serviceAccount);
}

function system({ systemNamespace }: AccessWorld, caller: Caller): string | undefined {
  return caller.namespace === systemNamespace ? undefined : `${accountOf(caller)} is not of namespace ${systemNamespace}`;
}

function ofOwnNamespace(caller: Caller, { namespace }: CallSubject): string | undefined {
  return namespace === caller.namespace ? undefined : `${accountOf(caller)} is not of namespace ${namespace}`;
}

const accountOf = ({ namespace, serviceAccount }: Caller): string => `${namespace}/${serviceAccount}`;
