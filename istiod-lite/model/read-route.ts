/** The parts that routes of every kind are written with: parents, backends, header filters, durations. */
import type { Header, HeaderChange } from '../../common/codec/gen/waypoint.ts';
import { at, isRecord, type ObjectMeta, portOf, quote, type Report, records, text, texts, whole } from './objects.ts';
import type { BackendReference, ParentReference, RouteBackend, RouteMirror } from './routes.ts';

const GATEWAY_API = 'gateway.networking.k8s.io';

export function readParents(object: unknown, meta: ObjectMeta, report: Report): ParentReference[] {
  return records(at(object, 'spec', 'parentRefs')).map((reference, index) => {
    const { port } = reference;
    const number = port === undefined || port === null ? undefined : portOf(port);
    if (port !== undefined && port !== null && number === undefined) report(`spec.parentRefs[${index}].port: ${quote(port)} is no port`);
    return {
      written: reference,
      group: groupOf(reference, GATEWAY_API),
      kind: text(reference.kind) || 'Gateway',
      namespace: text(reference.namespace) || meta.namespace,
      name: text(reference.name),
      port: number,
    };
  });
}

/** @param more reads a filter that is none about headers; undefined for one that is not supported of a single backend */
export function readBackends(
  rule: unknown,
  namespace: string,
  unsupported: Set<string>,
  more: (filter: Record<string, unknown>) => Pick<RouteBackend, 'redirect' | 'rewrite'> | undefined,
): RouteBackend[] {
  return records(at(rule, 'backendRefs')).map((backend) => {
    const changes: HeaderChanges = { requestHeaders: undefined, responseHeaders: undefined };
    const besides: { redirect?: RouteBackend['redirect']; rewrite?: RouteBackend['rewrite'] } = {};
    for (const filter of records(backend.filters)) {
      if (readHeaderFilter(filter, changes)) continue;
      const read = more(filter);
      if (read) Object.assign(besides, read);
      else unsupported.add(`backendRefs.filters: ${filterType(filter)}`);
    }
    return { to: readBackendReference(backend, namespace), weight: weightOf(backend.weight), ...changes, ...besides };
  });
}

function readBackendReference(reference: unknown, namespace: string): BackendReference {
  return {
    group: groupOf(reference, ''),
    kind: text(at(reference, 'kind')) || 'Service',
    namespace: text(at(reference, 'namespace')) || namespace,
    name: text(at(reference, 'name')),
    port: portOf(at(reference, 'port')),
  };
}

export interface HeaderChanges {
  requestHeaders: HeaderChange | undefined;
  responseHeaders: HeaderChange | undefined;
}

/** @returns whether the filter is one about headers */
export function readHeaderFilter(filter: Record<string, unknown>, changes: HeaderChanges): boolean {
  if (filter.type === 'RequestHeaderModifier') changes.requestHeaders = headerChange(filter.requestHeaderModifier);
  else if (filter.type === 'ResponseHeaderModifier') changes.responseHeaders = headerChange(filter.responseHeaderModifier);
  else return false;
  return true;
}

/** All by default; a percentage, or a fraction of a denominator that is 100 unless it is named. */
export function readMirror(filter: unknown, namespace: string): RouteMirror {
  const mirror = at(filter, 'requestMirror');
  const fraction = at(mirror, 'fraction');
  const to = readBackendReference(at(mirror, 'backendRef'), namespace);
  if (isRecord(fraction)) {
    const denominator = whole(fraction.denominator) ?? 100;
    return { to, numerator: clamp(whole(fraction.numerator) ?? 0, denominator), denominator: Math.max(denominator, 1) };
  }
  return { to, numerator: clamp(whole(at(mirror, 'percent')) ?? 100, 100), denominator: 100 };
}

export const filterType = (filter: Record<string, unknown>): string => {
  const reference = at(filter, 'extensionRef');
  return isRecord(reference) ? `${text(filter.type)} ${text(reference.kind)} ${text(reference.name)}` : text(filter.type) || quote(filter);
};

const UNITS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 };

/**
 * A duration of the Gateway API (GEP-2257): one to four numbers of at most five digits, each with its unit. 0 where there is none, or
 * where it says zero: both mean no limit.
 */
export function readDuration(value: unknown, field: string, report: Report): number {
  if (value === undefined || value === null) return 0;
  const written = text(value);
  if (!/^(?:[0-9]{1,5}(?:h|ms|m|s)){1,4}$/.test(written)) {
    report(`${field}: ${quote(value)} is no duration`);
    return 0;
  }
  let total = 0;
  for (const [, number = '', unit = ''] of written.matchAll(/([0-9]+)(h|ms|m|s)/g)) total += Number(number) * (UNITS[unit] ?? 0);
  return Math.min(total, MOST_MS);
}

// What the field can carry: 49 days, longer than any request.
const MOST_MS = 0xffff_ffff;

function headerChange(modifier: unknown): HeaderChange {
  return { set: headers(at(modifier, 'set')), add: headers(at(modifier, 'add')), remove: [...texts(at(modifier, 'remove'))] };
}

const headers = (items: unknown): Header[] => records(items).map(({ name, value }) => ({ name: text(name), value: text(value) }));

const groupOf = (reference: unknown, fallback: string): string => {
  const group = at(reference, 'group');
  if (typeof group !== 'string') return fallback;
  return group === 'core' ? '' : group;
};

const weightOf = (value: unknown): number => Math.min(Math.max(whole(value) ?? 1, 0), 1_000_000);

const clamp = (value: number, most: number): number => Math.min(Math.max(value, 0), Math.max(most, 1));
