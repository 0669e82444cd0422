/**
 * The providers that a mesh's configuration names for policies and telemetry to refer to (Istio, mesh/v1alpha1/config.proto,
 * MeshConfig.ExtensionProvider). One that cannot be used as it is written stays under its name, with the reason: whoever refers to it can say so.
 */

import { durationMs } from './istio-values.ts';
import { at, isRecord, quote, textMap, texts, whole } from './objects.ts';

/** Where a provider is: a service of the mesh. */
export interface ProviderService {
  /** Empty where only the host was given: then one service alone may have that name. */
  readonly namespace: string;
  readonly host: string;
  readonly port: number;
}

/** A header that a provider's requests carry: its value, or the name of a variable in the environment of the proxy that has it. */
export type ProviderHeader = { readonly name: string; readonly value: string } | { readonly name: string; readonly envName: string };

export interface CheckedBody {
  readonly maxRequestBytes: number;
  readonly allowPartialMessage: boolean;
  readonly packAsBytes: boolean;
}

interface ExtAuthz {
  readonly service: ProviderService;
  readonly timeoutMs: number;
  readonly failOpen: boolean;
  readonly clearRouteCache: boolean;
  /** What a client gets where the service cannot be asked. */
  readonly statusOnError: number;
  readonly includeRequestBodyInCheck: CheckedBody | undefined;
}

export interface ExtAuthzGrpcProvider extends ExtAuthz {
  readonly kind: 'envoyExtAuthzGrpc';
}

export interface ExtAuthzHttpProvider extends ExtAuthz {
  readonly kind: 'envoyExtAuthzHttp';
  /** Before the request's own path. */
  readonly pathPrefix: string;
  readonly includeRequestHeadersInCheck: readonly string[];
  readonly includeAdditionalHeadersInCheck: Readonly<Record<string, string>>;
  readonly headersToUpstreamOnAllow: readonly string[];
  readonly headersToDownstreamOnDeny: readonly string[];
  readonly headersToDownstreamOnAllow: readonly string[];
}

interface Tracer {
  readonly service: ProviderService;
  /** Longest tag, in characters. */
  readonly maxTagLength: number;
  readonly timeoutMs: number;
  readonly headers: readonly ProviderHeader[];
}

export interface OpenTelemetryProvider extends Tracer {
  readonly kind: 'opentelemetry';
  readonly protocol: 'grpc' | 'http';
  /** Of HTTP; empty for gRPC. */
  readonly path: string;
  /** Whether OTEL_RESOURCE_ATTRIBUTES of the proxy describe it. */
  readonly environmentResource: boolean;
  readonly serviceAttributes: 'ISTIO_CANONICAL' | 'OTEL_SEMANTIC_CONVENTIONS';
}

export interface ZipkinProvider extends Tracer {
  readonly kind: 'zipkin';
  readonly path: string;
  readonly enable64bitTraceId: boolean;
  /** Whether W3C's headers are read and written beside B3's. */
  readonly w3c: boolean;
}

export interface FileAccessLogProvider {
  readonly kind: 'envoyFileAccessLog';
  readonly path: string;
  /** Text with operators of Envoy, or a value with such texts at its ends; undefined for the mesh's own. */
  readonly format: { readonly text: string } | { readonly labels: Readonly<Record<string, unknown>> } | undefined;
  readonly omitEmptyValues: boolean;
}

export interface PrometheusProvider {
  readonly kind: 'prometheus';
}

/** Not usable as written, or of a kind that is not implemented. */
export interface UnusableProvider {
  readonly kind: 'unusable';
  /** As it is written: `datadog`. */
  readonly wanted: string;
  readonly problem: string;
}

export type ExtensionProvider =
  | ExtAuthzGrpcProvider
  | ExtAuthzHttpProvider
  | OpenTelemetryProvider
  | ZipkinProvider
  | FileAccessLogProvider
  | PrometheusProvider
  | UnusableProvider;

/** Takes sentences about fields that have no effect: a provider works without them. */
export type Remark = (message: string) => void;

type Fields = Readonly<Record<string, unknown>>;

/** @param provider one item of `extensionProviders`, of which `name` has been read */
export function readProvider(name: string, provider: Fields, remark: Remark): ExtensionProvider {
  const kinds = Object.keys(provider).filter((field) => field !== 'name');
  const [kind = ''] = kinds;
  const unusable = (problem: string): UnusableProvider => ({ kind: 'unusable', wanted: kind, problem: `provider ${name}: ${problem}` });
  if (kinds.length !== 1) return unusable(kinds.length === 0 ? 'says no kind' : `says several kinds: ${kinds.join(', ')}`);
  const reader = Object.hasOwn(readers, kind) ? readers[kind] : undefined;
  if (!reader) return unusable(OF_ISTIO.has(kind) ? `the kind ${kind} is not implemented` : `there is no kind ${quote(kind)}`);
  const value = provider[kind] ?? {};
  if (!isRecord(value)) return unusable(`${kind} is no object`);
  const problems: string[] = [];
  const fields = new FieldReader(value, problems);
  const read = reader(fields);
  for (const field of fields.unread()) remark(`provider ${name}: ${kind}.${field} is not known and has no effect`);
  return problems.length > 0 ? unusable(`${kind}.${problems.join(`; ${kind}.`)}`) : read;
}

export const PROMETHEUS: PrometheusProvider = { kind: 'prometheus' };
export const STDOUT = '/dev/stdout';

const OF_ISTIO = new Set('lightstep datadog stackdriver opencensus skywalking envoyHttpAls envoyTcpAls envoyOtelAls sds'.split(' '));

// Istio's, of which the documentation says "defaults to 600s".
const CHECK_TIMEOUT_MS = 600_000;
const EXPORT_TIMEOUT_MS = 5000;
const MAX_TAG_LENGTH = 256;
const MOST_BODY_BYTES = 1_048_576;
const MOST_LABELS = 200;
const DEEPEST_LABELS = 5;

/** Of one message: what was asked for is known, what was not is unknown. */
class FieldReader {
  readonly #value: Fields;
  readonly #problems: string[];
  readonly #read = new Set<string>();

  constructor(value: Fields, problems: string[]) {
    this.#value = value;
    this.#problems = problems;
  }

  unread(): string[] {
    return Object.keys(this.#value).filter((field) => !this.#read.has(field));
  }

  problem(message: string): void {
    this.#problems.push(message);
  }

  any(field: string): unknown {
    this.#read.add(field);
    return this.#value[field] ?? undefined;
  }

  text(field: string, fallback = ''): string {
    return this.#of(field, (value) => (typeof value === 'string' ? value : undefined), 'no text') ?? fallback;
  }

  flag(field: string): boolean {
    return this.#of(field, (value) => (typeof value === 'boolean' ? value : undefined), 'neither true nor false') ?? false;
  }

  count(field: string, most: number): number | undefined {
    const read = (value: unknown): number | undefined => {
      const number = whole(value);
      return number !== undefined && number >= 0 && number <= most ? number : undefined;
    };
    return this.#of(field, read, `no whole number of at most ${most}`);
  }

  texts(field: string): readonly string[] {
    return (
      this.#of(
        field,
        (value) => (Array.isArray(value) && texts(value).length === value.length ? texts(value) : undefined),
        'no list of texts',
      ) ?? []
    );
  }

  duration(field: string, fallback: number): number {
    return this.#of(field, durationMs, 'no duration') ?? fallback;
  }

  /** The fields of a message, with their place in problems; undefined where there is none. */
  message(field: string): FieldReader | undefined {
    const value = this.any(field);
    if (value === undefined) return undefined;
    if (isRecord(value)) return new FieldReader(value, this.#problems);
    this.problem(`${field}: ${quote(value)} is no object`);
    return undefined;
  }

  #of<T>(field: string, read: (value: unknown) => T | undefined, wrong: string): T | undefined {
    const value = this.any(field);
    if (value === undefined) return undefined;
    const found = read(value);
    if (found === undefined) this.problem(`${field}: ${quote(value)} is ${wrong}`);
    return found;
  }
}

const readers: Readonly<Record<string, (fields: FieldReader) => ExtensionProvider>> = {
  envoyExtAuthzGrpc: (fields) => ({ kind: 'envoyExtAuthzGrpc', ...extAuthz(fields) }),
  envoyExtAuthzHttp: (fields) => {
    const additional = fields.any('includeAdditionalHeadersInCheck');
    const headers = fields.texts('includeRequestHeadersInCheck');
    const older = fields.texts('includeHeadersInCheck');
    const pathPrefix = fields.text('pathPrefix');
    if (pathPrefix !== '' && !pathPrefix.startsWith('/')) fields.problem(`pathPrefix: ${quote(pathPrefix)} does not begin with /`);
    if (isRecord(additional) && Object.keys(textMap(additional)).length < Object.keys(additional).length)
      fields.problem(`includeAdditionalHeadersInCheck: ${quote(additional)} has values that are no text`);
    return {
      kind: 'envoyExtAuthzHttp',
      ...extAuthz(fields),
      pathPrefix,
      includeRequestHeadersInCheck: headers.length > 0 ? headers : older,
      includeAdditionalHeadersInCheck: textMap(additional),
      headersToUpstreamOnAllow: fields.texts('headersToUpstreamOnAllow'),
      headersToDownstreamOnDeny: fields.texts('headersToDownstreamOnDeny'),
      headersToDownstreamOnAllow: fields.texts('headersToDownstreamOnAllow'),
    };
  },
  opentelemetry: (fields) => {
    const http = fields.message('http');
    const grpc = fields.message('grpc');
    if (http && grpc) fields.problem('http and grpc are both given');
    const detectors = fields.message('resourceDetectors');
    const attributes = fields.text('serviceAttributeEnrichment', 'ISTIO_CANONICAL');
    if (attributes !== 'ISTIO_CANONICAL' && attributes !== 'OTEL_SEMANTIC_CONVENTIONS')
      fields.problem(`serviceAttributeEnrichment: there is no ${quote(attributes)}`);
    const path = http?.text('path') ?? '';
    if (http && !path.startsWith('/')) fields.problem(`http.path: ${quote(path)} does not begin with /`);
    if (fields.any('dynatraceSampler') !== undefined) fields.problem('dynatraceSampler is not implemented');
    if (detectors?.any('dynatrace') !== undefined) fields.problem('resourceDetectors.dynatrace is not implemented');
    return {
      kind: 'opentelemetry',
      service: serviceOf(fields),
      maxTagLength: fields.count('maxTagLength', MAX_TAG_LENGTH * 256) ?? MAX_TAG_LENGTH,
      protocol: http ? 'http' : 'grpc',
      path,
      timeoutMs: (http ?? grpc)?.duration('timeout', EXPORT_TIMEOUT_MS) ?? EXPORT_TIMEOUT_MS,
      headers: http ? headersOf(http, 'headers') : grpc ? headersOf(grpc, 'initialMetadata') : [],
      environmentResource: detectors?.any('environment') !== undefined,
      serviceAttributes: attributes === 'OTEL_SEMANTIC_CONVENTIONS' ? attributes : 'ISTIO_CANONICAL',
    };
  },
  zipkin: (fields) => {
    const path = fields.text('path', '/api/v2/spans');
    const option = fields.text('traceContextOption', 'USE_B3');
    if (!path.startsWith('/')) fields.problem(`path: ${quote(path)} does not begin with /`);
    if (option !== 'USE_B3' && option !== 'USE_B3_WITH_W3C_PROPAGATION') fields.problem(`traceContextOption: there is no ${quote(option)}`);
    return {
      kind: 'zipkin',
      service: serviceOf(fields),
      maxTagLength: fields.count('maxTagLength', MAX_TAG_LENGTH * 256) ?? MAX_TAG_LENGTH,
      path,
      enable64bitTraceId: fields.flag('enable64bitTraceId'),
      w3c: option === 'USE_B3_WITH_W3C_PROPAGATION',
      timeoutMs: fields.duration('timeout', EXPORT_TIMEOUT_MS),
      headers: headersOf(fields, 'headers'),
    };
  },
  envoyFileAccessLog: (fields) => {
    const format = fields.message('logFormat');
    const text = format?.any('text');
    const labels = format?.any('labels');
    if (format && (text === undefined) === (labels === undefined)) fields.problem('logFormat: either text or labels');
    if (text !== undefined && typeof text !== 'string') fields.problem(`logFormat.text: ${quote(text)} is no text`);
    if (labels !== undefined && !(isRecord(labels) && isBounded(labels)))
      fields.problem(`logFormat.labels: no object, or one with more than ${MOST_LABELS} values or ${DEEPEST_LABELS} levels`);
    return {
      kind: 'envoyFileAccessLog',
      path: fields.text('path', STDOUT),
      format: typeof text === 'string' ? { text } : isRecord(labels) ? { labels } : undefined,
      omitEmptyValues: fields.flag('omitEmptyValues'),
    };
  },
  prometheus: () => PROMETHEUS,
};

function extAuthz(fields: FieldReader): ExtAuthz {
  const body = fields.message('includeRequestBodyInCheck');
  const status = fields.text('statusOnError');
  if (status !== '' && !/^[1-5][0-9][0-9]$/.test(status)) fields.problem(`statusOnError: ${quote(status)} is no HTTP status`);
  return {
    service: serviceOf(fields),
    timeoutMs: fields.duration('timeout', CHECK_TIMEOUT_MS),
    failOpen: fields.flag('failOpen'),
    clearRouteCache: fields.flag('clearRouteCache'),
    statusOnError: Number(status) || 403,
    includeRequestBodyInCheck: body && {
      maxRequestBytes: body.count('maxRequestBytes', MOST_BODY_BYTES) ?? 0,
      allowPartialMessage: body.flag('allowPartialMessage'),
      packAsBytes: body.flag('packAsBytes'),
    },
  };
}

/** `[namespace/]host` and `port`. */
function serviceOf(fields: FieldReader): ProviderService {
  const written = fields.text('service');
  const port = fields.count('port', 65535) ?? 0;
  const [, namespace = '', host = ''] = /^(?:([a-z0-9-]+)\/)?([a-z0-9.-]+)$/i.exec(written) ?? [];
  if (host === '') fields.problem(`service: ${quote(written)} is no [namespace/]host`);
  if (port === 0) fields.problem('port is missing');
  return { namespace, host: host.toLowerCase(), port };
}

const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/i;

function headersOf(fields: FieldReader, field: string): ProviderHeader[] {
  const items = fields.any(field) ?? [];
  if (!Array.isArray(items)) fields.problem(`${field}: ${quote(items)} is no list`);
  return (Array.isArray(items) ? items : []).flatMap((item, i): ProviderHeader[] => {
    const [name, value, envName] = [at(item, 'name'), at(item, 'value'), at(item, 'envName')];
    if (typeof name === 'string' && HEADER_NAME.test(name)) {
      // A line end in a value would be another header.
      if (typeof value === 'string' && !/[\r\n\0]/.test(value)) return [{ name: name.toLowerCase(), value }];
      if (typeof envName === 'string') return [{ name: name.toLowerCase(), envName }];
    }
    fields.problem(`${field}[${i}]: ${quote(name)} is no header with a value or envName`);
    return [];
  });
}

/** YAML's aliases let a few lines stand for gigabytes. */
function isBounded(labels: Fields): boolean {
  let left = MOST_LABELS;
  const walk = (value: unknown, depth: number): boolean => {
    if (--left < 0 || depth > DEEPEST_LABELS) return false;
    return typeof value !== 'object' || value === null || Object.values(value).every((item) => walk(item, depth + 1));
  };
  return walk(labels, 0);
}
