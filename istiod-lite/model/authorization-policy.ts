/**
 * AuthorizationPolicy → the part of it that ztunnel enforces (Istio, pilot/pkg/serviceregistry/ambient/authorization.go). What needs HTTP cannot be matched there:
 * an ALLOW rule with such a field is dropped, and a DENY rule loses the field, so both refuse more than was written and never less.
 * Istio leaves an empty clause in a DENY, which ztunnel never matches, so that a DENY about HTTP alone lets everything pass; here the
 * clause goes, and the rule denies what its L4 part says (decision 8).
 */
import { parseCidr, parsePort } from '../../common/base/address.ts';
import {
  Action,
  type Address,
  type Authorization,
  type Group,
  type Match,
  Scope,
  type ServiceAccountMatch,
  type StringMatch,
} from '../../common/codec/gen/authorization.ts';
import { type Condition, ZTUNNEL_ACCEPTED } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import * as names from './names.ts';
import {
  annotationFlag,
  at,
  isRecord,
  type Labels,
  list,
  objectKey,
  quote,
  type Report,
  readMeta,
  records,
  selectorLabels,
  text,
  texts,
} from './objects.ts';

export interface AuthorizationPolicy {
  readonly key: string;
  readonly namespace: string;
  /** Picks workloads by label; undefined where it holds for its namespace, or for the mesh. */
  readonly selector: Labels | undefined;
  /** undefined where ztunnel is told nothing. */
  readonly authorization: Authorization | undefined;
  /** undefined where the policy is not for ztunnel: it names its targets. */
  readonly condition: Condition | undefined;
  /** Fields that only a waypoint could match. */
  readonly httpFields: readonly string[];
}

export function readAuthorizationPolicy(config: MeshModelConfig, object: unknown, report: Report): AuthorizationPolicy | undefined {
  const meta = readMeta(object);
  if (!meta) return undefined;
  const spec = at(object, 'spec');
  const about = { key: objectKey(meta), namespace: meta.namespace, httpFields: [] };
  if (isRecord(at(spec, 'targetRef')) || list(at(spec, 'targetRefs')).length > 0) {
    return { ...about, selector: undefined, authorization: undefined, condition: undefined };
  }
  // Whom an unreadable selector means nobody knows; the policy then holds for all whom it may concern, as no policy would refuse less.
  const written = selectorLabels(at(spec, 'selector', 'matchLabels'), 'spec.selector.matchLabels', report);
  const selector = written === 'unreadable' || !at(spec, 'selector') ? undefined : (written ?? {});
  const condition = (status: 'True' | 'False', reason: string, message: string): Condition => ({
    type: ZTUNNEL_ACCEPTED,
    status,
    reason,
    message,
    observedGeneration: meta.generation,
  });
  const refused = (message: string): AuthorizationPolicy => ({
    ...about,
    selector: undefined,
    authorization: undefined,
    condition: condition('False', 'UnsupportedValue', message),
  });
  const action = text(at(spec, 'action')) || 'ALLOW';
  if (action !== 'ALLOW' && action !== 'DENY') return refused(`action ${action} is not enforced by ztunnel`);
  const dryRun = annotationFlag(meta.annotations[names.DRY_RUN]) === true;
  if (dryRun && config.dryRunPolicies !== true) return refused('a dry run is asked for, and dry runs are switched off for ztunnel');
  const reader = new RuleReader(action, meta.namespace, report);
  const groups = records(at(spec, 'rules')).flatMap((rule) => reader.group(rule) ?? []);
  const httpFields = [...reader.unsupported].sort();
  return {
    ...about,
    selector,
    authorization: {
      name: meta.name,
      namespace: meta.namespace,
      scope: selector ? Scope.WORKLOAD_SELECTOR : meta.namespace === config.rootNamespace ? Scope.GLOBAL : Scope.NAMESPACE,
      action: action === 'DENY' ? Action.DENY : Action.ALLOW,
      groups,
      dryRun,
      extensions: [],
    },
    condition:
      httpFields.length === 0
        ? condition('True', 'Accepted', 'enforced by ztunnel')
        : condition('True', 'UnsupportedValue', unsupportedMessage(action, httpFields)),
    httpFields,
  };
}

function unsupportedMessage(action: 'ALLOW' | 'DENY', fields: readonly string[]): string {
  const consequence =
    action === 'ALLOW'
      ? 'the rules that use them are left out, so less is allowed than written'
      : 'the rules are enforced without them, so more is denied than written';
  return `ztunnel sees no HTTP and cannot match ${fields.join(', ')}: ${consequence}. A waypoint, and targetRefs that name it or a service behind it, enforce the policy as written`;
}

type Field = keyof Omit<Match, 'extensions'>;

const SOURCE: Readonly<Record<string, Field>> = {
  principals: 'principals',
  notPrincipals: 'notPrincipals',
  namespaces: 'namespaces',
  notNamespaces: 'notNamespaces',
  serviceAccounts: 'serviceAccounts',
  notServiceAccounts: 'notServiceAccounts',
  ipBlocks: 'sourceIps',
  notIpBlocks: 'notSourceIps',
};

const OPERATION: Readonly<Record<string, Field>> = { ports: 'destinationPorts', notPorts: 'notDestinationPorts' };

const WHEN: Readonly<Record<string, readonly [Field, Field]>> = {
  'source.ip': ['sourceIps', 'notSourceIps'],
  'source.namespace': ['namespaces', 'notNamespaces'],
  'source.principal': ['principals', 'notPrincipals'],
  'destination.ip': ['destinationIps', 'notDestinationIps'],
  'destination.port': ['destinationPorts', 'notDestinationPorts'],
};

/** Any of its matches; 'always' adds nothing to a rule. */
type Clause = readonly Match[] | 'always';

class RuleReader {
  /** Fields found that ztunnel cannot match. */
  readonly unsupported = new Set<string>();
  readonly #deny: boolean;
  readonly #namespace: string;
  readonly #report: Report;

  constructor(action: 'ALLOW' | 'DENY', namespace: string, report: Report) {
    this.#deny = action === 'DENY';
    this.#namespace = namespace;
    this.#report = report;
  }

  /** @returns undefined for a rule that must not match anything */
  group(rule: Record<string, unknown>): Group | undefined {
    const unsupported = new Set<string>();
    const clauses = [
      this.#clause(
        records(rule.to).map(({ operation }) => operation),
        OPERATION,
        unsupported,
      ),
      this.#clause(
        records(rule.from).map(({ source }) => source),
        SOURCE,
        unsupported,
      ),
      ...records(rule.when).map((condition) => this.#when(condition, unsupported)),
    ];
    for (const field of unsupported) this.unsupported.add(field);
    if (unsupported.size > 0 && !this.#deny) return undefined;
    return { rules: clauses.flatMap((clause) => (clause === 'always' ? [] : [{ matches: [...clause] }])) };
  }

  #clause(items: readonly unknown[], fields: Readonly<Record<string, Field>>, unsupported: Set<string>): Clause {
    if (items.length === 0) return 'always';
    const matches = items.map((item) => {
      const match = new MatchBuilder(this.#deny, this.#namespace, this.#report);
      for (const [name, values] of isRecord(item) ? Object.entries(item) : []) {
        if (isEmpty(values)) continue;
        const field = Object.hasOwn(fields, name) ? fields[name] : undefined;
        if (field) match.add(field, values, name);
        else unsupported.add(name);
      }
      return match;
    });
    return this.#anyOf(matches);
  }

  #when(condition: Record<string, unknown>, unsupported: Set<string>): Clause {
    const key = text(condition.key);
    const fields = Object.hasOwn(WHEN, key) ? WHEN[key] : undefined;
    const match = new MatchBuilder(this.#deny, this.#namespace, this.#report);
    if (fields) {
      if (!isEmpty(condition.values)) match.add(fields[0], condition.values, key);
      if (!isEmpty(condition.notValues)) match.add(fields[1], condition.notValues, key);
    } else unsupported.add(key);
    return this.#anyOf([match]);
  }

  #anyOf(builders: readonly MatchBuilder[]): Clause {
    // In a DENY, an alternative without any field left stands for "whatever it is"; in an ALLOW ztunnel matches it never.
    if (this.#deny && builders.some((builder) => !builder.constrained)) return 'always';
    return builders.map((builder) => builder.match);
  }
}

const isEmpty = (values: unknown): boolean => values === undefined || values === null || (Array.isArray(values) && values.length === 0);

/** Builds one match. A value that cannot be read is reported, and its field then errs on the side of refusing. */
class MatchBuilder {
  readonly match: Match = {
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
    extensions: [],
  };
  constrained = false;
  readonly #deny: boolean;
  readonly #namespace: string;
  readonly #report: Report;
  #never = false;

  constructor(deny: boolean, namespace: string, report: Report) {
    this.#deny = deny;
    this.#namespace = namespace;
    this.#report = report;
  }

  add(field: Field, values: unknown, name: string): void {
    const written = texts(values);
    let bad = list(values).length - written.length + (Array.isArray(values) ? 0 : 1);
    const take = <T>(into: T[], parse: (value: string) => T | undefined): void => {
      const good: T[] = [];
      for (const value of written) {
        const parsed = parse(value);
        if (parsed === undefined) bad++;
        else good.push(parsed);
        if (parsed === undefined) this.#report(`${name}: ${quote(value)} cannot be read`);
      }
      this.#keep(into, good, bad, field.startsWith('not'));
    };
    switch (field) {
      case 'namespaces':
      case 'notNamespaces':
      case 'principals':
      case 'notPrincipals':
        take(this.match[field], stringMatch);
        break;
      case 'sourceIps':
      case 'notSourceIps':
      case 'destinationIps':
      case 'notDestinationIps':
        take(this.match[field], cidr);
        break;
      case 'destinationPorts':
      case 'notDestinationPorts':
        take(this.match[field], parsePort);
        break;
      default:
        take(this.match[field], (value) => serviceAccount(value, this.#namespace));
    }
  }

  /**
   * With unreadable values among them, values that widen what matches may be missing. An ALLOW loses nothing by a positive one (it
   * matches less) and everything by a negative one; for a DENY it is the other way round, and the field goes as a whole.
   */
  #keep<T>(into: T[], good: readonly T[], bad: number, negative: boolean): void {
    if (bad > 0 && this.#deny && !negative) return;
    if (bad > 0 && !this.#deny && (negative || good.length === 0)) this.#never = true;
    if (this.#never) this.#clear();
    else if (good.length > 0) {
      into.push(...good);
      this.constrained = true;
    }
  }

  /** Without any field, ztunnel matches it never. */
  #clear(): void {
    for (const values of Object.values(this.match)) values.length = 0;
    this.constrained = false;
  }
}

function stringMatch(value: string): StringMatch {
  if (value === '*') return { matchType: { $case: 'presence', value: {} } };
  if (value.startsWith('*')) return { matchType: { $case: 'suffix', value: value.slice(1) } };
  if (value.endsWith('*')) return { matchType: { $case: 'prefix', value: value.slice(0, -1) } };
  return { matchType: { $case: 'exact', value } };
}

function cidr(value: string): Address | undefined {
  const parsed = parseCidr(value);
  return parsed && { address: parsed.bytes, length: parsed.length };
}

/** `namespace/account`, or `account` of the policy's own namespace. */
function serviceAccount(value: string, namespace: string): ServiceAccountMatch | undefined {
  const pieces = value.split('/');
  if (pieces.length > 2 || pieces.includes('')) return undefined;
  const [first = '', second] = pieces;
  return second === undefined ? { namespace, serviceAccount: first } : { namespace: first, serviceAccount: second };
}
