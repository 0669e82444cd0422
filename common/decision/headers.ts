/**
 * The header fields that a CONNECT between proxies carries besides its authority: who is behind the tunnel (`baggage`), which service it
 * meant (`forwarded`), and the trace that it belongs to. They only label telemetry; nothing here is ever trusted for a decision.
 */
import { formatSocketAddress, type SocketAddress } from '../base/address.ts';
import type { Locality, Workload } from './mesh-view.ts';

/** What `baggage` says about a workload; absent where it does not say. */
export interface Baggage {
  readonly clusterId?: string;
  readonly namespace?: string;
  readonly workloadName?: string;
  readonly workloadType?: Workload['workloadType'];
  readonly canonicalName?: string;
  readonly canonicalRevision?: string;
  readonly region?: string;
  readonly zone?: string;
}

/** The part of a workload that baggage describes. */
export type BaggageSource = Pick<
  Workload,
  'clusterId' | 'namespace' | 'workloadName' | 'workloadType' | 'canonicalName' | 'canonicalRevision'
> & { readonly locality: Locality };

type BaggageField = Exclude<keyof Baggage, 'workloadType' | 'workloadName'>;

const KEYS: Readonly<Record<string, BaggageField>> = {
  'k8s.cluster.name': 'clusterId',
  'k8s.namespace.name': 'namespace',
  'service.name': 'canonicalName',
  'service.version': 'canonicalRevision',
  'cloud.region': 'region',
  'cloud.availability_zone': 'zone',
};

const WORKLOAD_KEY = /^k8s\.(deployment|cronjob|pod|job)\.name$/;

/**
 * The `baggage` value that describes a workload: `key=value` joined with commas, no spaces, no percent-encoding, empty values left out
 * (Istio's ztunnel, src/proxy/outbound.rs). Values with a comma or line break would change what the header says and are left out as well.
 */
export function formatBaggage(workload: BaggageSource): string {
  let text = formatted.get(workload);
  if (text === undefined) {
    text = baggageOf(workload);
    formatted.set(workload, text);
  }
  return text;
}

/** Every connection of a workload says the same of it; a workload that changes is another object. */
const formatted = new WeakMap<BaggageSource, string>();

function baggageOf(workload: BaggageSource): string {
  const pairs: readonly (readonly [string, string])[] = [
    ['k8s.cluster.name', workload.clusterId],
    ['k8s.namespace.name', workload.namespace],
    [`k8s.${workload.workloadType}.name`, workload.workloadName],
    ['service.name', workload.canonicalName],
    ['service.version', workload.canonicalRevision],
    ['cloud.region', workload.locality.region],
    ['cloud.availability_zone', workload.locality.zone],
  ];
  return pairs
    .filter(([, value]) => value !== '' && isHeaderText(value))
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
}

/** Reads all `baggage` fields of a request as one; unknown keys, empty values and pieces without `=` are passed over. Never throws. */
export function parseBaggage(headers: readonly string[]): Baggage {
  const [only = ''] = headers;
  if (headers.length > 1 || only.length > MAX_REMEMBERED_LENGTH) return readBaggage(headers);
  let known = remembered.get(only);
  if (!known) {
    known = readBaggage(headers);
    // Peers say the same on each connection, and whoever makes up new things each time must not make us keep them.
    if (remembered.size >= MAX_REMEMBERED) remembered.clear();
    remembered.set(only, known);
  }
  return known;
}

const MAX_REMEMBERED = 1024;
const MAX_REMEMBERED_LENGTH = 1024;
const remembered = new Map<string, Baggage>();

function readBaggage(headers: readonly string[]): Baggage {
  const found: { -readonly [K in keyof Baggage]: Baggage[K] } = {};
  for (const piece of headers.flatMap((header) => header.split(','))) {
    const equals = piece.indexOf('=');
    if (equals < 0) continue;
    const key = piece.slice(0, equals).trim();
    const value = piece.slice(equals + 1).trim();
    if (value === '') continue;
    const field = Object.hasOwn(KEYS, key) ? KEYS[key] : undefined;
    if (field) found[field] = value;
    const type = WORKLOAD_KEY.exec(key)?.[1];
    if (type === undefined) continue;
    found.workloadName = value;
    found.workloadType = type as NonNullable<Baggage['workloadType']>;
  }
  return found;
}

/** The `forwarded` value: the client's address and, where the client meant a service, its hostname. */
export function formatForwarded(source: SocketAddress, serviceHostname?: string): string {
  const client = `for="${formatSocketAddress(source)}"`;
  return serviceHostname === undefined || serviceHostname === '' ? client : `${client};host=${serviceHostname}`;
}

/** The `host` parameter of the first element that has one (RFC 7239, section 4), quotes removed; undefined where there is none. */
export function parseForwardedHost(headers: readonly string[]): string | undefined {
  // Most say only whom the connection is for.
  if (!headers.some((header) => /host/i.test(header))) return undefined;
  for (const pair of headers.flatMap(splitOutsideQuotes)) {
    const equals = pair.indexOf('=');
    if (equals < 0 || pair.slice(0, equals).trim().toLowerCase() !== 'host') continue;
    const host = unquote(pair.slice(equals + 1).trim());
    if (host !== '') return host;
  }
  return undefined;
}

const TRACEPARENT = /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** A W3C `traceparent` of version 00, not sampled, of 32 and 16 hexadecimal digits. */
export const formatTraceparent = (traceId: string, parentId: string): string => `00-${traceId}-${parentId}-00`;

/** The trace id of a `traceparent` of version 00; undefined for anything else. */
export function traceIdOf(traceparent: string): string | undefined {
  return TRACEPARENT.test(traceparent) ? traceparent.slice(3, 35) : undefined;
}

// A control character in a header value would end the header; a comma would start another pair.
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const isHeaderText = (value: string): boolean => !/[\x00-\x1f\x7f,]/.test(value);

/** Cuts at `;` and `,` that are not within a quoted string. */
function splitOutsideQuotes(header: string): string[] {
  return header.match(/(?:"(?:\\.|[^"\\])*"?|[^",;])+/g) ?? [];
}

function unquote(value: string): string {
  return value.length >= 2 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1).replace(/\\(.)/g, '$1') : value;
}
