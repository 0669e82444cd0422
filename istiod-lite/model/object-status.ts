/**
 * Statuses that are more than a list of conditions: a route's parents, a Gateway's addresses and listeners. As in status-table.ts, what an
 * object shows is compared with what it should, and only a difference is written, once.
 */

import { isDeepStrictEqual } from 'node:util';
import type { Condition, StatusBody, StatusSlot, StatusWrite, WantedStatus } from './conditions.ts';
import * as names from './names.ts';
import { at, isRecord, records, text } from './objects.ts';
import { isOurAncestor } from './policy-ancestors.ts';
import type { RouteParentStatus } from './route-status.ts';
import type { RouteKind } from './routes.ts';
import { statusPath, watchedKinds } from './watched-kinds.ts';

interface Entry {
  readonly shown: StatusBody;
  resourceVersion: string;
  wanted: WantedStatus;
  /** What was last handed out for writing and has not been seen on the object yet. */
  written: StatusBody | undefined;
}

export type StatusKind = 'Gateway' | RouteKind | PolicyKind;

/** Policies whose status has an entry for each target. */
export type PolicyKind = 'RateLimitPolicy' | 'BackendTLSPolicy';

const isPolicy = (kind: StatusKind): kind is PolicyKind => kind === 'RateLimitPolicy' || kind === 'BackendTLSPolicy';

const fieldManagerOf = (kind: StatusKind): string =>
  kind === 'Gateway' || isPolicy(kind) ? names.WAYPOINT_CONTROLLER : names.ROUTE_CONTROLLER;

export class ObjectStatusTable {
  readonly #entries = new Map<string, Entry>();
  readonly #pending = new Set<string>();
  readonly #settled: StatusSlot[] = [];

  observe(kind: StatusKind, key: string, object: unknown): void {
    const id = `${kind}/${key}`;
    const shown = readStatus(kind, object);
    const entry = this.#entries.get(id);
    const resourceVersion = text(at(object, 'metadata', 'resourceVersion'));
    if (entry && isDeepStrictEqual(entry.shown, shown)) {
      // A write that was made for the object as it was before fails.
      if (hasOthers(shown) && entry.resourceVersion !== resourceVersion) this.#again(id, entry);
      entry.resourceVersion = resourceVersion;
      return;
    }
    this.#settle(id, entry);
    this.#entries.set(id, { shown, resourceVersion, wanted: entry?.wanted ?? (() => undefined), written: undefined });
    this.#pending.add(id);
  }

  #again(id: string, entry: Entry): void {
    this.#settle(id, entry);
    entry.written = undefined;
    this.#pending.add(id);
  }

  forget(kind: StatusKind, key: string): void {
    const id = `${kind}/${key}`;
    this.#settle(id, this.#entries.get(id));
    this.#entries.delete(id);
    this.#pending.delete(id);
  }

  /** As in status-table.ts. */
  takeSettled(): StatusSlot[] {
    return this.#settled.splice(0);
  }

  #settle(id: string, entry: Entry | undefined): void {
    if (entry?.written) this.#settled.push(statusWrite(id, {}));
  }

  want(kind: StatusKind, key: string, wanted: WantedStatus): void {
    const id = `${kind}/${key}`;
    const entry = this.#entries.get(id);
    if (!entry) return;
    entry.wanted = wanted;
    this.#pending.add(id);
  }

  take(): StatusWrite[] {
    const writes: StatusWrite[] = [];
    for (const id of this.#pending) {
      const entry = this.#entries.get(id);
      const wanted = entry?.wanted(entry.shown);
      if (!entry || !wanted || same(entry.shown, wanted) || (entry.written && same(entry.written, wanted))) continue;
      entry.written = wanted;
      const write = statusWrite(id, withTimes(wanted, entry.shown));
      writes.push(hasOthers(entry.shown) && entry.resourceVersion ? { ...write, resourceVersion: entry.resourceVersion } : write);
    }
    this.#pending.clear();
    return writes;
  }
}

/**
 * A route's parents: ours, beside those of other controllers as they wrote them.
 * @param o.seen the route names a Gateway of ours, in vain: an empty list says that we have read it
 * @param o.silent nothing is wrong with it, and it is a kind on whose status Istio then writes nothing
 */
export function wantedParents(ours: readonly RouteParentStatus[], o: { seen: boolean; silent: boolean }): WantedStatus {
  return ({ parents }) => {
    if (o.silent && parents === undefined) return undefined;
    const others = (parents ?? []).filter(isOthers);
    if (ours.length > 0 || others.length < (parents ?? []).length) return { parents: [...others, ...ours] };
    return o.seen && parents === undefined ? { parents: [] } : undefined;
  };
}

const GATEWAY_CONDITIONS: readonly string[] = ['Accepted', 'Programmed', 'ResolvedRefs'];

const isOthers = ({ controllerName }: { readonly controllerName?: unknown }): boolean => controllerName !== names.ROUTE_CONTROLLER;

/** Parents are one list, which is written as a whole. */
const hasOthers = ({ parents, ancestors }: StatusBody): boolean =>
  (parents ?? []).some(isOthers) || (ancestors ?? []).some((one) => !isOurAncestor(one));

function readStatus(kind: StatusKind, object: unknown): StatusBody {
  const status = at(object, 'status');
  if (isPolicy(kind)) return Array.isArray(at(status, 'ancestors')) ? { ancestors: records(at(status, 'ancestors')) } : {};
  if (kind !== 'Gateway') return Array.isArray(at(status, 'parents')) ? { parents: records(at(status, 'parents')) } : {};
  const addresses = records(at(status, 'addresses'));
  return {
    ...(addresses.length > 0 ? { addresses } : {}),
    conditions: records(at(status, 'conditions')).filter(({ type }) => GATEWAY_CONDITIONS.includes(text(type))),
    listeners: records(at(status, 'listeners')),
  };
}

function statusWrite(id: string, status: StatusBody): StatusWrite {
  const [kind, namespace = '', name = ''] = id.split('/') as [StatusKind, string?, string?];
  const entries = [...records(status.parents), ...records(status.ancestors)];
  const conditions = status.conditions ?? entries.flatMap((entry) => records(entry.conditions));
  return {
    kind,
    apiVersion: watchedKinds[kind].apiVersion,
    path: statusPath(kind, namespace, name),
    namespace,
    name,
    fieldManager: fieldManagerOf(kind),
    // Made here or copied from the object, where another controller's stand among them.
    conditions: conditions as readonly Condition[],
    status,
  };
}

const same = (a: StatusBody, b: StatusBody): boolean => isDeepStrictEqual(plain(a), plain(b));

/** Without times, and lists in an order of their own: a status says the same in any. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain).sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  if (!isRecord(value)) return value;
  const fields = Object.entries(value).filter(([name, field]) => name !== 'lastTransitionTime' && field !== undefined);
  return Object.fromEntries(fields.sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, field]) => [name, plain(field)]));
}

/** Conditions that have not flipped keep the time at which they last did. */
function withTimes<T>(wanted: T, shown: unknown): T {
  if (Array.isArray(wanted)) {
    const known = records(shown);
    return wanted.map((item) =>
      withTimes(
        item,
        known.find((other) => identity(other) === identity(item)),
      ),
    ) as T;
  }
  if (!isRecord(wanted)) return wanted;
  const copy = Object.fromEntries(Object.entries(wanted).map(([name, value]) => [name, withTimes(value, at(shown, name))]));
  const since = at(shown, 'lastTransitionTime');
  if (typeof since === 'string' && 'status' in copy && copy.status === at(shown, 'status')) copy.lastTransitionTime ??= since;
  return copy as T;
}

/** What makes an item of a list the same one: a condition's type, a listener's name, a parent and its controller. */
const identity = (item: unknown): string =>
  text(at(item, 'type')) ||
  text(at(item, 'name')) ||
  JSON.stringify(plain([at(item, 'controllerName'), at(item, 'parentRef'), at(item, 'ancestorRef')]));
