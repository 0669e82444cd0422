/**
 * The policies that hold for one pod, from what its ztunnel and its waypoints have in force, and what each would do, in words. Pure. What a
 * ztunnel is told of a policy are conditions about connections; a waypoint has those about requests besides.
 */
export interface AppliedPolicy {
  readonly action: string;
  /** `namespace/name`. */
  readonly policy: string;
  /** The proxy. */
  readonly at: string;
  /** Why it holds for this pod. */
  readonly because: string;
  readonly dryRun: boolean;
  /** One sentence for each rule, any of which is enough; none: it matches nothing. */
  readonly rules: readonly string[];
}

type Json = Readonly<Record<string, unknown>>;

/** @param dump of the pod's ztunnel */
export function nodePolicies(dump: Json, pod: { readonly namespace: string; readonly name: string }, at: string): AppliedPolicy[] {
  const workload = list(dump.workloads).find(({ namespace, name }) => namespace === pod.namespace && name === pod.name);
  const selected = new Set(texts(workload?.authorizationPolicies));
  return list(dump.policies).flatMap(({ namespace, name, scope, action, rules, dryRun }) => {
    const policy = `${text(namespace)}/${text(name)}`;
    const because =
      scope === 'Global'
        ? 'the whole mesh'
        : scope === 'Namespace' && namespace === pod.namespace
          ? `namespace ${text(namespace)}`
          : selected.has(policy)
            ? 'its selector'
            : '';
    if (because === '') return [];
    return [{ action: text(action).toUpperCase(), policy, at, because, dryRun: dryRun === true, rules: groups(rules) }];
  });
}

/** Keys (`namespace/hostname`) of the services that the pod stands behind, and names of waypoints that are before it. */
export function inFront(
  dump: Json,
  pod: { readonly namespace: string; readonly name: string },
): { services: string[]; waypoints: string[] } {
  const workload = list(dump.workloads).find(({ namespace, name }) => namespace === pod.namespace && name === pod.name);
  const services = texts(workload?.services);
  const own = list(dump.services).filter(({ namespace, hostname }) => services.includes(`${text(namespace)}/${text(hostname)}`));
  const destinations = [workload, ...own]
    .map((each) => (isObject(each?.waypoint) ? text(each.waypoint.destination) : ''))
    .filter((each) => each !== '');
  const named = list(dump.services).filter(
    ({ namespace, hostname, vips }) =>
      destinations.includes(`${text(namespace)}/${text(hostname)}`) || texts(vips).some((vip) => destinations.includes(vip)),
  );
  return { services, waypoints: named.map(({ namespace, name }) => `${text(namespace)}/${text(name)}`) };
}

/** @param dump of a waypoint. @param services keys of those that the pod stands behind */
export function waypointPolicies(dump: Json, services: readonly string[], at: string): AppliedPolicy[] {
  return list(dump.httpAuthorizations).flatMap(({ namespace, name, action, dryRun, targets, rules, authorizer }) => {
    const held = list(targets).flatMap(({ type }) => {
      if (!isObject(type)) return [];
      if (type.$case === 'everything') return ['all of its waypoint'];
      return services.includes(text(type.value)) ? [`service ${shortService(text(type.value))}`] : [];
    });
    if (held.length === 0) return [];
    const asks = isObject(authorizer) ? ` (asks ${text(authorizer.name)})` : '';
    return [
      {
        action: `${ACTIONS[Number(action)] ?? '?'}${asks}`,
        policy: `${text(namespace)}/${text(name)}`,
        at,
        because: held.join(', '),
        dryRun: dryRun === true,
        rules: list(rules).map(httpRule),
      },
    ];
  });
}

/** `shop/orders` for `shop/orders.shop.svc.cluster.local`. */
export function shortService(key: string): string {
  const [namespace = '', hostname = ''] = key.split('/');
  const [name = '', of, kind] = hostname.split('.');
  return kind === 'svc' && of === namespace ? `${namespace}/${name}` : hostname;
}

/** Identities of one mesh by their account, for tables. */
export const shortIdentities = (sentence: string): string =>
  sentence.replaceAll(/(?:spiffe:\/\/)?[^\s/]+\/ns\/([^\s/]+)\/sa\/([^\s/]+)/g, '$1/$2');

const ACTIONS = ['ALLOW', 'DENY', 'AUDIT', 'CUSTOM'];

/** What becomes of whatever no rule matches, for the policies of one proxy. */
export function otherwise(policies: readonly AppliedPolicy[]): string {
  const enforced = policies.filter(({ dryRun }) => !dryRun);
  if (enforced.some(({ action }) => action === 'ALLOW')) return 'what no ALLOW rule matches is refused';
  return enforced.some(({ action }) => action === 'DENY') ? 'what no DENY rule matches is allowed' : 'everything is allowed';
}

/** What one policy does, in one sentence. */
export function meaning({ action, rules, dryRun }: AppliedPolicy): string {
  const [verb = ''] = action.split(' ');
  const verbs: Readonly<Record<string, string>> = { ALLOW: 'allows', DENY: 'refuses', AUDIT: 'logs', CUSTOM: 'asks about' };
  const does = dryRun ? `would ${{ ALLOW: 'allow', DENY: 'refuse' }[verb] ?? 'act on'} (dry run)` : (verbs[verb] ?? verb);
  if (rules.length === 0) return verb === 'ALLOW' ? 'allows nothing: it has no rules' : `${does} nothing: it has no rules`;
  return `${does} ${rules.join('; or ')}`;
}

/** Groups are alternatives; in a group every clause must hold, of a clause's matches one. */
const groups = (rules: unknown): string[] =>
  (Array.isArray(rules) ? rules : []).map((group: unknown) => {
    const clauses = (Array.isArray(group) ? group : []).map((clause: unknown) => list(clause).map(l4Match).join(' or '));
    const said = clauses.filter((clause) => clause !== '');
    return said.length === 0 ? 'everything' : said.join(', and ');
  });

const L4_FIELDS: readonly (readonly [field: string, words: string])[] = [
  ['namespaces', 'from namespace'],
  ['notNamespaces', 'not from namespace'],
  ['principals', 'from'],
  ['notPrincipals', 'not from'],
  ['serviceAccounts', 'from account'],
  ['notServiceAccounts', 'not from account'],
  ['sourceIps', 'from address'],
  ['notSourceIps', 'not from address'],
  ['destinationIps', 'to address'],
  ['notDestinationIps', 'not to address'],
  ['destinationPorts', 'to port'],
  ['notDestinationPorts', 'not to port'],
];

/** Who has an identity, whichever it is. */
const ANYBODY = 'anybody with an identity';

const l4Match = (match: Json): string =>
  L4_FIELDS.flatMap(([field, words]) => {
    const values = (Array.isArray(match[field]) ? match[field] : []).map(l4Value);
    // STRICT comes to this.
    if (field === 'notPrincipals' && values.includes(ANYBODY)) return ['what has no identity'];
    return values.length === 0 ? [] : [`${words} ${values.join(' or ')}`];
  }).join(' ');

function l4Value(value: unknown): string {
  if (!isObject(value)) return isObject(value) ? '' : String(typeof value === 'object' ? JSON.stringify(value) : value);
  if ('Exact' in value) return text(value.Exact);
  if ('Prefix' in value) return `${text(value.Prefix)}*`;
  if ('Suffix' in value) return `*${text(value.Suffix)}`;
  if ('Presence' in value) return ANYBODY;
  return text(value.namespace) === '' ? JSON.stringify(value) : `${text(value.namespace)}/${text(value.serviceAccount)}`;
}

function httpRule({ from, to, when }: Json): string {
  const sources = list(from)
    .map((source) => fieldsOf(source, HTTP_SOURCE))
    .filter((each) => each !== '');
  const operations = list(to)
    .map((operation) => fieldsOf(operation, HTTP_OPERATION))
    .filter((each) => each !== '');
  const conditions = list(when).map(({ key, values, notValues }) =>
    [
      ...(list(values).length > 0 ? [`${text(key)} is ${list(values).map(textMatch).join(' or ')}`] : []),
      ...(list(notValues).length > 0 ? [`${text(key)} is not ${list(notValues).map(textMatch).join(' or ')}`] : []),
    ].join(' and '),
  );
  const parts = [
    operations.length > 0 ? operations.join(' or ') : '',
    sources.length > 0 ? sources.join(' or ') : '',
    conditions.length > 0 ? `where ${conditions.join(' and ')}` : '',
  ].filter((each) => each !== '');
  return parts.length === 0 ? 'everything' : parts.join(' ');
}

type Field = readonly [field: string, words: string];

const HTTP_SOURCE: readonly Field[] = [
  ['principals', 'from'],
  ['notPrincipals', 'not from'],
  ['namespaces', 'from namespace'],
  ['notNamespaces', 'not from namespace'],
  ['serviceAccounts', 'from account'],
  ['notServiceAccounts', 'not from account'],
  ['ipBlocks', 'from address'],
  ['notIpBlocks', 'not from address'],
  ['requestPrincipals', 'with a token of'],
  ['notRequestPrincipals', 'not with a token of'],
  ['trustDomains', 'from trust domain'],
  ['notTrustDomains', 'not from trust domain'],
  ['remoteIpBlocks', 'from remote address'],
  ['notRemoteIpBlocks', 'not from remote address'],
];
const HTTP_OPERATION: readonly Field[] = [
  ['methods', ''],
  ['notMethods', 'other than'],
  ['paths', ''],
  ['notPaths', 'paths other than'],
  ['hosts', 'to host'],
  ['notHosts', 'not to host'],
  ['ports', 'to port'],
  ['notPorts', 'not to port'],
];

const fieldsOf = (of: Json, fields: readonly Field[]): string =>
  fields
    .flatMap(([field, words]) => {
      const values = Array.isArray(of[field]) ? of[field] : [];
      const said = values.map((value: unknown) => (isObject(value) ? textMatch(value) : String(value))).join(' or ');
      return said === '' ? [] : [words === '' ? said : `${words} ${said}`];
    })
    .join(' ');

function textMatch({ type }: Json): string {
  if (!isObject(type)) return '?';
  const value = text(type.value);
  return { exact: value, prefix: `${value}*`, suffix: `*${value}`, presence: 'anything', template: value }[text(type.$case)] ?? '?';
}

const isObject = (value: unknown): value is Json => value !== null && typeof value === 'object' && !Array.isArray(value);
const list = (value: unknown): Json[] => (Array.isArray(value) ? value : isObject(value) ? Object.values(value) : []).filter(isObject);
const text = (value: unknown): string => (typeof value === 'string' ? value : '');
const texts = (value: unknown): string[] => (Array.isArray(value) ? value.map(text) : []);
