/**
 * AuthorizationPolicy → what a waypoint enforces of it (Istio, pilot/pkg/security/authz). What a waypoint cannot match yet is read in the stricter
 * way (decision 8), as ztunnel's half is: an ALLOW rule with it allows nothing, and a DENY rule refuses what its other fields say. Of a CUSTOM
 * rule the same holds: it asks about more.
 */
import { parseCidr, parsePort } from '../../common/base/address.ts';
import {
  Action,
  type Condition,
  type HttpAuthorizationRule,
  type Operation,
  type Source,
  type TextMatch,
} from '../../common/codec/gen/waypoint.ts';
import { ADDRESS_KEYS, attributeOf } from '../../common/decision/http-model.ts';
import * as names from './names.ts';
import { annotationFlag, at, isRecord, list, quote, type Report, readMeta, records, text, texts } from './objects.ts';

export interface HttpPolicy {
  readonly action: Action;
  readonly dryRun: boolean;
  readonly rules: readonly HttpAuthorizationRule[];
  /** Whom CUSTOM asks, by the name of an extension provider; undefined for other actions. */
  readonly provider: string | undefined;
  /** What differs from the policy as written, for its status; undefined where nothing does. */
  readonly problem: string | undefined;
  /** A policy that restricts nothing, or that nobody can read the action of, is not sent. */
  readonly enforced: boolean;
}

export function readHttpPolicy(object: unknown, report: Report): HttpPolicy {
  const meta = readMeta(object);
  const spec = at(object, 'spec');
  const action = text(at(spec, 'action')) || 'ALLOW';
  if (!['ALLOW', 'DENY', 'AUDIT', 'CUSTOM'].includes(action)) {
    const problem = `action ${action} is not carried out by waypoints: nothing comes of this policy`;
    return { action: Action.ALLOW, dryRun: false, rules: [], provider: undefined, problem, enforced: false };
  }
  // What cannot be read errs on the side of refusing; an AUDIT refuses nothing, and then tells less.
  const deny = action === 'DENY' || action === 'CUSTOM';
  const reader = new RuleReader(deny, meta?.namespace ?? '', report);
  const rules = records(at(spec, 'rules')).flatMap((rule) => reader.rule(rule) ?? []);
  return {
    action: ACTIONS[action] ?? Action.DENY,
    dryRun: annotationFlag(meta?.annotations[names.DRY_RUN]) === true,
    rules,
    provider: action === 'CUSTOM' ? text(at(spec, 'provider', 'name')) : undefined,
    problem: problemOf(action, [...reader.unsupported].sort()),
    enforced: true,
  };
}

const ACTIONS: Readonly<Record<string, Action>> = {
  ALLOW: Action.ALLOW,
  DENY: Action.DENY,
  AUDIT: Action.AUDIT,
  CUSTOM: Action.CUSTOM,
};

function problemOf(action: string, unsupported: readonly string[]): string | undefined {
  const sentences: string[] = [];
  if (unsupported.length > 0) {
    const consequence =
      action === 'AUDIT'
        ? 'the rules that use them tell nothing'
        : action === 'ALLOW'
          ? 'the rules that use them allow nothing, so less is allowed than written'
          : `the rules are enforced without them, so more is ${action === 'DENY' ? 'denied' : 'asked about'} than written`;
    sentences.push(`waypoints cannot match ${unsupported.join(', ')} yet: ${consequence}`);
  }
  return sentences.length > 0 ? sentences.join('. ') : undefined;
}

type Parse<T> = (value: string, namespace: string) => T | undefined;

const SOURCE = {
  principals: textMatch,
  notPrincipals: textMatch,
  namespaces: textMatch,
  notNamespaces: textMatch,
  serviceAccounts: accountMatch,
  notServiceAccounts: accountMatch,
  ipBlocks: cidrText,
  notIpBlocks: cidrText,
  requestPrincipals: textMatch,
  notRequestPrincipals: textMatch,
  trustDomains: textMatch,
  notTrustDomains: textMatch,
  remoteIpBlocks: cidrText,
  notRemoteIpBlocks: cidrText,
} as const satisfies { [F in keyof Source]: Parse<Source[F][number]> };

const OPERATION = {
  hosts: textMatch,
  notHosts: textMatch,
  ports: parsePort,
  notPorts: parsePort,
  methods: textMatch,
  notMethods: textMatch,
  paths: pathMatch,
  notPaths: pathMatch,
} as const satisfies { [F in keyof Operation]: Parse<Operation[F][number]> };

/** An alternative that must never match, one that matches whatever comes, or one with fields. */
type Alternative<T> = 'never' | 'always' | T;

class RuleReader {
  /** Fields and values found that a waypoint cannot match. */
  readonly unsupported = new Set<string>();
  readonly #deny: boolean;
  readonly #namespace: string;
  readonly #report: Report;

  constructor(deny: boolean, namespace: string, report: Report) {
    this.#deny = deny;
    this.#namespace = namespace;
    this.#report = report;
  }

  /** @returns undefined for a rule that must not match anything */
  rule(rule: Record<string, unknown>): HttpAuthorizationRule | undefined {
    const unsupported = new Set<string>();
    const from = this.#anyOf(records(rule.from).map(({ source }) => this.#fields<Source>(source, SOURCE, emptySource(), unsupported)));
    const to = this.#anyOf(
      records(rule.to).map(({ operation }) => this.#fields<Operation>(operation, OPERATION, emptyOperation(), unsupported)),
    );
    const when = records(rule.when).map((condition) => this.#when(condition, unsupported));
    for (const field of unsupported) this.unsupported.add(field);
    if (!this.#deny && unsupported.size > 0) return undefined;
    if (from === 'never' || to === 'never' || when.includes('never')) return undefined;
    return { from, to, when: when.filter((condition) => typeof condition !== 'string') };
  }

  /** An empty list holds whatever comes. */
  #anyOf<T extends object>(alternatives: readonly Alternative<T>[]): T[] | 'never' {
    if (alternatives.length === 0 || alternatives.includes('always')) return [];
    const found = alternatives.flatMap((alternative) => (typeof alternative === 'object' ? [alternative] : []));
    return found.length > 0 ? found : 'never';
  }

  #fields<T extends Source | Operation>(
    item: unknown,
    fields: Readonly<Record<string, Parse<TextMatch | string | number>>>,
    match: T,
    unsupported: Set<string>,
  ): Alternative<T> {
    const into: Record<string, unknown[]> = { ...match };
    let constrained = false;
    let never = false;
    for (const [name, values] of isRecord(item) ? Object.entries(item) : []) {
      if (isEmpty(values)) continue;
      const parse = Object.hasOwn(fields, name) ? fields[name] : undefined;
      if (!parse) {
        unsupported.add(name);
        continue;
      }
      const read = this.#values(name, values, parse);
      if (read === 'never') never = true;
      else if (read !== 'always') {
        into[name]?.push(...read);
        constrained = true;
      }
    }
    if (never) return 'never';
    // Without a field, a DENY refuses whatever it is; an ALLOW that says nothing allows nothing.
    if (!constrained) return this.#deny ? 'always' : 'never';
    return match;
  }

  #when(condition: Record<string, unknown>, unsupported: Set<string>): Alternative<Condition> {
    const key = text(condition.key);
    const isAddress = ADDRESS_KEYS.includes(key);
    if (!isAddress && (attributeOf(key) === undefined || key.startsWith('request.headers[:'))) {
      unsupported.add(key || 'a condition without a key');
      return this.#deny ? 'always' : 'never';
    }
    const parse = isAddress ? addressMatch : textMatch;
    const values = isEmpty(condition.values) ? 'always' : this.#values(key, condition.values, parse);
    const notValues = isEmpty(condition.notValues) ? 'always' : this.#values(`not ${key}`, condition.notValues, parse);
    if (values === 'never' || notValues === 'never') return 'never';
    if (values === 'always' && notValues === 'always') return this.#deny ? 'always' : 'never';
    return { key, values: values === 'always' ? [] : values, notValues: notValues === 'always' ? [] : notValues };
  }

  /**
   * With unreadable values among them, values that widen what matches may be missing. An ALLOW loses nothing by a positive one (it
   * matches less) and everything by a negative one; for a DENY it is the other way round, and the field goes as a whole.
   */
  #values<T>(name: string, values: unknown, parse: Parse<T>): Alternative<T[]> {
    const written = texts(values);
    const negative = name.startsWith('not');
    let bad = list(values).length - written.length + (Array.isArray(values) ? 0 : 1);
    const good: T[] = [];
    for (const value of written) {
      const parsed = parse(value, this.#namespace);
      if (parsed === undefined) {
        bad++;
        this.#report(`${name}: ${quote(value)} cannot be read`);
        this.unsupported.add(`${name} ${quote(value)}`);
      } else good.push(parsed);
    }
    if (bad > 0 && this.#deny && !negative) return 'always';
    if (bad > 0 && !this.#deny && (negative || good.length === 0)) return 'never';
    return good.length > 0 ? good : 'always';
  }
}

const emptySource = (): Source => ({
  principals: [],
  notPrincipals: [],
  namespaces: [],
  notNamespaces: [],
  serviceAccounts: [],
  notServiceAccounts: [],
  ipBlocks: [],
  notIpBlocks: [],
  requestPrincipals: [],
  notRequestPrincipals: [],
  trustDomains: [],
  notTrustDomains: [],
  remoteIpBlocks: [],
  notRemoteIpBlocks: [],
});

const emptyOperation = (): Operation => ({
  hosts: [],
  notHosts: [],
  ports: [],
  notPorts: [],
  methods: [],
  notMethods: [],
  paths: [],
  notPaths: [],
});

const isEmpty = (values: unknown): boolean => values === undefined || values === null || (Array.isArray(values) && values.length === 0);

/** `*` at an end stands for anything; alone, for whatever is there. */
export function textMatch(value: string): TextMatch | undefined {
  if (value === '') return undefined;
  if (value === '*') return { type: { $case: 'presence', value: {} } };
  if (value.startsWith('*')) return { type: { $case: 'suffix', value: value.slice(1) } };
  if (value.endsWith('*')) return { type: { $case: 'prefix', value: value.slice(0, -1) } };
  return { type: { $case: 'exact', value } };
}

/** Istio's path templates: {*} for a segment and {**} for any number. */
export function pathMatch(value: string): TextMatch | undefined {
  return /\{\*{1,2}\}/.test(value) ? { type: { $case: 'template', value } } : textMatch(value);
}

/** `namespace/account`, or `account` of the policy's own namespace. */
function accountMatch(value: string, namespace: string): TextMatch | undefined {
  const pieces = value.split('/');
  if (pieces.length > 2 || pieces.includes('')) return undefined;
  return { type: { $case: 'exact', value: pieces.length === 2 ? value : `${namespace}/${value}` } };
}

function cidrText(value: string): string | undefined {
  return parseCidr(value) ? value : undefined;
}

export const addressMatch = (value: string): TextMatch | undefined => (parseCidr(value) ? { type: { $case: 'exact', value } } : undefined);
