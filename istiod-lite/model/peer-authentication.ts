/**
 * PeerAuthentication → DENY policies (Istio, pilot/pkg/serviceregistry/ambient/authorization.go). ztunnel learns nothing of mTLS modes: STRICT is a policy that denies
 * whoever comes without an identity, and exceptions for ports are policies of their own. Ports are enforced as written, which Istio does
 * not do in two corners (a STRICT port under a PERMISSIVE workload in a STRICT mesh; an exception that says DISABLE).
 */
import { Action, type Authorization, type Match, Scope } from '../../common/codec/gen/authorization.ts';
import {
  at,
  isRecord,
  type Labels,
  type ObjectMeta,
  objectKey,
  portOf,
  quote,
  type Report,
  readMeta,
  selectorLabels,
  text,
} from './objects.ts';

export type MtlsMode = 'UNSET' | 'DISABLE' | 'PERMISSIVE' | 'STRICT';

export interface PeerAuthentication {
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly createdAt: string;
  /** undefined where it holds for its namespace, or for the mesh. */
  readonly selector: Labels | undefined;
  readonly mode: MtlsMode;
  readonly ports: ReadonlyMap<number, MtlsMode>;
}

export const STATIC_STRICT = 'istio_converted_static_strict';

export function readPeerAuthentication(rootNamespace: string, object: unknown, report: Report): PeerAuthentication | undefined {
  const meta = readMeta(object);
  if (!meta) return undefined;
  const labels = selectorLabels(at(object, 'spec', 'selector', 'matchLabels'), 'spec.selector.matchLabels', report);
  const mode = readMode(at(object, 'spec', 'mtls', 'mode'), report);
  const ports = readPorts(at(object, 'spec', 'portLevelMtls'), report);
  if (labels === 'unreadable') return unreadable(meta, mode === 'STRICT' || [...ports.values()].includes('STRICT'));
  const selector = labels && Object.keys(labels).length > 0 ? labels : undefined;
  if (selector && meta.namespace === rootNamespace) report(`a selector has no effect in the root namespace ${rootNamespace}`);
  if (!selector && ports.size > 0) report('portLevelMtls has no effect without a selector');
  return {
    key: objectKey(meta),
    namespace: meta.namespace,
    name: meta.name,
    createdAt: meta.createdAt,
    selector,
    mode,
    ports,
  };
}

/** Of several of one level the oldest counts, as everywhere in Istio; names decide between equals. */
export function oldest(candidates: Iterable<PeerAuthentication>): PeerAuthentication | undefined {
  let first: PeerAuthentication | undefined;
  for (const candidate of candidates) {
    if (!first || candidate.createdAt < first.createdAt || (candidate.createdAt === first.createdAt && candidate.key < first.key))
      first = candidate;
  }
  return first;
}

/** The first mode that is set, from the most specific level on; PERMISSIVE where none is. */
export const effectiveMode = (...modes: readonly (MtlsMode | undefined)[]): MtlsMode =>
  modes.find((mode) => mode !== undefined && mode !== 'UNSET') ?? 'PERMISSIVE';

/** What a workload's policies must name for its mTLS mode to hold. */
export function peerAuthenticationReference(
  rootNamespace: string,
  inherited: MtlsMode,
  own: PeerAuthentication | undefined,
): string | undefined {
  if (own && convertPorts(own, inherited)) return convertedKey(own);
  return effectiveMode(own?.mode, inherited) === 'STRICT' ? `${rootNamespace}/${STATIC_STRICT}` : undefined;
}

const convertedName = (name: string): string => `converted_peer_authentication_${name}`;

const convertedKey = ({ namespace, name }: PeerAuthentication): string => `${namespace}/${convertedName(name)}`;

/** Denies whoever has no identity; workloads that are STRICT refer to it. */
export const staticStrict = (rootNamespace: string): Authorization =>
  denial(rootNamespace, STATIC_STRICT, [{ rules: [{ matches: [match({ anonymous: true })] }] }]);

/**
 * @param inherited the mode of the namespace, or of the mesh
 * @returns undefined where the ports change nothing, so that the static policy, or none, says it all
 */
export function convertPorts(own: PeerAuthentication, inherited: MtlsMode): Authorization | undefined {
  if (!own.selector || own.ports.size === 0) return undefined;
  const base = effectiveMode(own.mode, inherited);
  const ports = [...own.ports].sort(([a], [b]) => a - b);
  const exceptions = ports.filter(([, mode]) => mode !== 'UNSET' && (mode === 'STRICT') !== (base === 'STRICT')).map(([port]) => port);
  if (exceptions.length === 0) return undefined;
  const groups =
    base === 'STRICT'
      ? [{ rules: [match({ anonymous: true }), ...exceptions.map((port) => match({ notPort: port }))].map((it) => ({ matches: [it] })) }]
      : exceptions.map((port) => ({ rules: [{ matches: [match({ anonymous: true, port })] }] }));
  return denial(own.namespace, convertedName(own.name), groups);
}

function denial(namespace: string, name: string, groups: Authorization['groups']): Authorization {
  return { name, namespace, scope: Scope.WORKLOAD_SELECTOR, action: Action.DENY, groups, dryRun: false, extensions: [] };
}

function match({ anonymous, port, notPort }: { anonymous?: true; port?: number; notPort?: number }): Match {
  return {
    namespaces: [],
    notNamespaces: [],
    principals: [],
    notPrincipals: anonymous ? [{ matchType: { $case: 'presence', value: {} } }] : [],
    sourceIps: [],
    notSourceIps: [],
    destinationIps: [],
    notDestinationIps: [],
    destinationPorts: port === undefined ? [] : [port],
    notDestinationPorts: notPort === undefined ? [] : [notPort],
    serviceAccounts: [],
    notServiceAccounts: [],
    extensions: [],
  };
}

/** For whom it was meant nobody knows: where it asks for STRICT anywhere, the whole namespace is STRICT; else it is left aside. */
function unreadable(meta: ObjectMeta, strict: boolean): PeerAuthentication | undefined {
  const { namespace, name, createdAt } = meta;
  return strict ? { key: objectKey(meta), namespace, name, createdAt, selector: undefined, mode: 'STRICT', ports: new Map() } : undefined;
}

function readMode(value: unknown, report: Report): MtlsMode {
  if (value === undefined || value === null) return 'UNSET';
  const word = text(value);
  if (word === 'UNSET' || word === 'DISABLE' || word === 'PERMISSIVE' || word === 'STRICT') return word;
  report(`mtls mode ${quote(value)} is unknown; STRICT is enforced`);
  return 'STRICT';
}

function readPorts(value: unknown, report: Report): ReadonlyMap<number, MtlsMode> {
  const ports = new Map<number, MtlsMode>();
  if (!isRecord(value)) return ports;
  for (const [key, setting] of Object.entries(value)) {
    const port = portOf(key);
    if (port === undefined) report(`portLevelMtls: ${quote(key)} is no port`);
    else ports.set(port, readMode(at(setting, 'mode'), report));
  }
  return ports;
}
