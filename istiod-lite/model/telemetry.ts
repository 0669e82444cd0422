/**
 * Telemetry objects as they are written (Istio, telemetry/v1alpha1/telemetry.proto): what is counted, logged and traced at waypoints, and how. What
 * cannot be carried out is told in the object's status, and the rest holds.
 */
import { errorMessage } from '../../common/base/errors.ts';
import type { SpanTag } from '../../common/codec/gen/waypoint.ts';
import { compileFormatter } from '../../common/decision/log-format.ts';
import { compileFilter, compileTag, isLabelName } from '../../common/decision/telemetry-model.ts';
import { at, isRecord, objectKey, quote, readMeta, records, text } from './objects.ts';
import { type PolicyTarget, readTargets } from './policy-targets.ts';

export interface Telemetry {
  readonly kind: 'Telemetry';
  /** As policies have it that limit. */
  readonly limits: undefined;
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly generation: number;
  readonly createdAt: string;
  /** For the whole namespace, for pods that it selects, or for what it names. */
  readonly scope: 'namespace' | 'selector' | 'targets';
  readonly targets: readonly PolicyTarget[];
  readonly metrics: readonly MetricsPart[];
  readonly accessLogging: readonly LoggingPart[];
  readonly tracing: readonly TracingPart[];
  /** What cannot be carried out as it is written. */
  readonly problems: readonly string[];
}

export interface MetricsPart {
  /** None: those of the level above. */
  readonly providers: readonly string[];
  readonly overrides: readonly MetricOverride[];
}

export interface MetricOverride {
  readonly families: readonly string[];
  readonly disabled: boolean | undefined;
  /** Expression, or empty for a tag that is taken away. */
  readonly tags: readonly (readonly [name: string, expression: string])[];
}

export interface LoggingPart {
  readonly providers: readonly string[];
  readonly disabled: boolean;
  /** CEL; empty for all. */
  readonly filter: string;
}

export interface TracingPart {
  readonly providers: readonly string[];
  readonly percent: number | undefined;
  readonly disabled: boolean | undefined;
  /** Instead of all from the levels above. */
  readonly tags: readonly SpanTag[] | undefined;
  readonly istioTags: boolean | undefined;
  readonly stopContext: boolean | undefined;
}

/** Prometheus' names of Istio's metrics (MetricSelector.IstioMetric). */
const FAMILIES: Readonly<Record<string, string>> = {
  REQUEST_COUNT: 'istio_requests_total',
  REQUEST_DURATION: 'istio_request_duration_milliseconds',
  REQUEST_SIZE: 'istio_request_bytes',
  RESPONSE_SIZE: 'istio_response_bytes',
  TCP_OPENED_CONNECTIONS: 'istio_tcp_connections_opened_total',
  TCP_CLOSED_CONNECTIONS: 'istio_tcp_connections_closed_total',
  TCP_SENT_BYTES: 'istio_tcp_sent_bytes_total',
  TCP_RECEIVED_BYTES: 'istio_tcp_received_bytes_total',
  GRPC_REQUEST_MESSAGES: 'istio_request_messages_total',
  GRPC_RESPONSE_MESSAGES: 'istio_response_messages_total',
};
const ALL_FAMILIES = Object.values(FAMILIES);
/** Parts of one list in one object; a status has room for no more problems. */
const MOST_PARTS = 100;
const MOST_TAGS = 50;

export function readTelemetry(object: unknown): Telemetry | undefined {
  const meta = readMeta(object);
  if (!meta) return undefined;
  const spec = at(object, 'spec');
  const problems: string[] = [];
  const targets = readTargets(object, meta.namespace);
  const selector = at(spec, 'selector', 'matchLabels');
  const selects = isRecord(selector) && Object.keys(selector).length > 0;
  if (selects && targets.length > 0) problems.push('selector and targetRefs are both given; targetRefs count');
  unknownFields(spec, 'spec', ['selector', 'targetRef', 'targetRefs', 'tracing', 'metrics', 'accessLogging'], problems);
  const parts = <T>(field: string, read: (part: Record<string, unknown>, place: string, problems: string[]) => T | undefined): T[] => {
    const items = records(at(spec, field));
    if (items.length > MOST_PARTS) problems.push(`${field}: only the first ${MOST_PARTS} are read`);
    return items.slice(0, MOST_PARTS).flatMap((part, i) => read(part, `${field}[${i}]`, problems) ?? []);
  };
  return {
    kind: 'Telemetry',
    limits: undefined,
    key: objectKey(meta),
    namespace: meta.namespace,
    name: meta.name,
    generation: meta.generation,
    createdAt: meta.createdAt,
    scope: targets.length > 0 ? 'targets' : selects ? 'selector' : 'namespace',
    targets,
    metrics: parts('metrics', readMetrics),
    accessLogging: parts('accessLogging', readLogging),
    tracing: parts('tracing', readTracing),
    problems,
  };
}

type Part = Readonly<Record<string, unknown>>;

function readMetrics(part: Part, place: string, problems: string[]): MetricsPart {
  unknownFields(part, place, ['providers', 'overrides', 'reportingInterval'], problems);
  if (part.reportingInterval !== undefined)
    problems.push(`${place}.reportingInterval has no effect: bytes of open connections are counted each second`);
  return {
    providers: providersOf(part),
    overrides: records(part.overrides).flatMap((each, i) => readOverride(each, `${place}.overrides[${i}]`, problems) ?? []),
  };
}

function readOverride(override: Part, place: string, problems: string[]): MetricOverride | undefined {
  unknownFields(override, place, ['match', 'disabled', 'tagOverrides'], problems);
  if (!isServer(at(override, 'match', 'mode'), place, problems)) return undefined;
  const custom = at(override, 'match', 'customMetric');
  const metric = text(at(override, 'match', 'metric')) || 'ALL_METRICS';
  const family = Object.hasOwn(FAMILIES, metric) ? FAMILIES[metric] : undefined;
  if (custom !== undefined || (family === undefined && metric !== 'ALL_METRICS')) {
    problems.push(`${place}.match: there is no metric ${quote(custom ?? metric)}`);
    return undefined;
  }
  const given = override.tagOverrides ?? {};
  const tags = (isRecord(given) ? Object.entries(given) : []).slice(0, MOST_TAGS);
  if (isRecord(given) && Object.keys(given).length > MOST_TAGS)
    problems.push(`${place}.tagOverrides: only the first ${MOST_TAGS} are read`);
  return {
    families: family === undefined ? ALL_FAMILIES : [family],
    disabled: flagOf(override.disabled, `${place}.disabled`, problems),
    tags: tags.flatMap(([name, change]) => readTag(name, change, `${place}.tagOverrides[${name}]`, problems)),
  };
}

function readTag(name: string, change: unknown, place: string, problems: string[]): (readonly [string, string])[] {
  const operation = text(at(change, 'operation')) || 'UPSERT';
  const value = text(at(change, 'value'));
  if (!isLabelName(name)) {
    problems.push(`${place}: this is no name of a label`);
    return [];
  }
  if (operation === 'REMOVE') return [[name, '']];
  if (operation !== 'UPSERT') {
    problems.push(`${place}.operation: there is no ${quote(operation)}`);
    return [];
  }
  return tried(`${place}.value`, problems, () => {
    if (value === '') throw new Error('is missing');
    compileTag(value);
    return [[name, value] as const];
  });
}

function readLogging(part: Part, place: string, problems: string[]): LoggingPart | undefined {
  unknownFields(part, place, ['match', 'providers', 'disabled', 'filter'], problems);
  if (!isServer(at(part, 'match', 'mode'), place, problems)) return undefined;
  const expression = text(at(part, 'filter', 'expression'));
  // Without its filter it logs more than was asked for, which beats logging nothing.
  const [filter = ''] =
    expression === ''
      ? []
      : tried(`${place}.filter.expression`, problems, () => {
          compileFilter(expression);
          return [expression];
        });
  return { providers: providersOf(part), disabled: flagOf(part.disabled, `${place}.disabled`, problems) ?? false, filter };
}

function readTracing(part: Part, place: string, problems: string[]): TracingPart | undefined {
  const known = ['match', 'providers', 'randomSamplingPercentage', 'disableSpanReporting', 'customTags', 'enableIstioTags'];
  unknownFields(part, place, [...known, 'useRequestIdForTraceSampling', 'disableContextPropagation'], problems);
  if (!isServer(at(part, 'match', 'mode'), place, problems)) return undefined;
  if (part.useRequestIdForTraceSampling === true)
    problems.push(`${place}.useRequestIdForTraceSampling has no effect: request ids say nothing about sampling here`);
  const percent = part.randomSamplingPercentage;
  const isPercent = typeof percent === 'number' && percent >= 0 && percent <= 100;
  if (percent !== undefined && !isPercent) problems.push(`${place}.randomSamplingPercentage: ${quote(percent)} is no percentage`);
  const tags = part.customTags;
  return {
    providers: providersOf(part),
    percent: isPercent ? percent : undefined,
    disabled: flagOf(part.disableSpanReporting, `${place}.disableSpanReporting`, problems),
    tags: isRecord(tags)
      ? Object.entries(tags)
          .slice(0, MOST_TAGS)
          .flatMap(([name, tag]) => readSpanTag(name, tag, `${place}.customTags[${name}]`, problems))
      : undefined,
    istioTags: flagOf(part.enableIstioTags, `${place}.enableIstioTags`, problems),
    stopContext: flagOf(part.disableContextPropagation, `${place}.disableContextPropagation`, problems),
  };
}

function readSpanTag(name: string, tag: unknown, place: string, problems: string[]): SpanTag[] {
  return tried(place, problems, (): SpanTag[] => {
    const [kind = '', ...more] = isRecord(tag) ? Object.keys(tag) : [];
    const value = text(at(tag, kind, kind === 'literal' || kind === 'formatter' ? 'value' : 'name'));
    if (more.length > 0 || value === '') throw new Error(`${quote(tag)} is no literal, header, environment or formatter with a value`);
    const defaultValue = text(at(tag, kind, 'defaultValue'));
    switch (kind) {
      case 'literal':
        return [{ name, source: { $case: 'literal', value }, defaultValue }];
      case 'header':
        return [{ name, source: { $case: 'header', value }, defaultValue }];
      case 'environment':
        return [{ name, source: { $case: 'environment', value }, defaultValue }];
      case 'formatter':
        compileFormatter(value, () => undefined);
        return [{ name, source: { $case: 'format', value }, defaultValue }];
      default:
        throw new Error(`there is no kind ${quote(kind)}`);
    }
  });
}

const providersOf = (part: Part): string[] => records(part.providers).flatMap(({ name }) => text(name) || []);

/** A waypoint is what Istio calls a server. */
function isServer(mode: unknown, place: string, problems: string[]): boolean {
  if (mode === 'CLIENT') problems.push(`${place}.match.mode CLIENT has no effect: a waypoint reports as a server`);
  else if (mode !== undefined && mode !== 'SERVER' && mode !== 'CLIENT_AND_SERVER')
    problems.push(`${place}.match.mode: there is no ${quote(mode)}`);
  else return true;
  return false;
}

function flagOf(value: unknown, place: string, problems: string[]): boolean | undefined {
  if (value === undefined || value === null || typeof value === 'boolean') return value ?? undefined;
  problems.push(`${place}: ${quote(value)} is neither true nor false`);
  return undefined;
}

function unknownFields(value: unknown, place: string, known: readonly string[], problems: string[]): void {
  for (const field of isRecord(value) ? Object.keys(value) : [])
    if (!known.includes(field)) problems.push(`${place}.${field} is not known and has no effect`);
}

function tried<T>(place: string, problems: string[], read: () => T[]): T[] {
  try {
    return read();
  } catch (error) {
    problems.push(`${place}: ${errorMessage(error)}`);
    return [];
  }
}
