/** Telemetry of a service, compiled once when the resource arrives, so that a request only calls what somebody has asked for. */
import { errorMessage } from '../base/errors.ts';
import type { AccessLogger, MetricChange, ServiceTelemetry, SpanReceiver, SpanTag, Tracing } from '../codec/gen/waypoint.ts';
import { compileCel } from './cel.ts';
import { celText } from './cel-values.ts';
import { compileFormatter, compileJsonFormat, compileTextFormat, type LogFormatOptions } from './log-format.ts';
import { type TelemetryFacts, telemetryAttributes } from './telemetry-facts.ts';

export interface CompiledTelemetry {
  /** `namespace/hostname`, or `*` */
  readonly target: string;
  /** undefined leaves Istio's as they are. */
  readonly metrics: CompiledMetrics | undefined;
  /** undefined leaves lines of our own form. */
  readonly loggers: readonly CompiledLogger[] | undefined;
  readonly tracing: CompiledTracing | undefined;
}

export interface CompiledMetrics {
  /** Texts of all tags, each worked out once for a request. */
  readonly tags: readonly ((facts: TelemetryFacts) => string)[];
  readonly families: ReadonlyMap<string, CompiledMetricChange>;
}

export interface CompiledMetricChange {
  readonly disabled: boolean;
  /** By label name: index into `tags`, or -1 for one that is taken away. */
  readonly changes: ReadonlyMap<string, number>;
}

export interface CompiledLogger {
  readonly stderr: boolean;
  /** With its line end; undefined where the filter does not take it. */
  line(facts: TelemetryFacts): string | undefined;
}

export interface CompiledTracing {
  readonly provider: string;
  /** As it came: equal ones are the same receiver. */
  readonly receiver: SpanReceiver;
  readonly perMillion: number;
  readonly tags: readonly { readonly name: string; read(facts: TelemetryFacts): string | undefined }[];
  readonly istioTags: boolean;
  readonly stopContext: boolean;
}

export const EVERYTHING_ELSE = '*';
const UNKNOWN = 'unknown';
/** Of one value of a label: series live long. */
const LONGEST_LABEL = 256;
const MOST_TAGS = 100;

/** @param environment of the proxy @throws {Error} naming what cannot be compiled, with its position */
export function compileTelemetry(message: ServiceTelemetry, environment: LogFormatOptions['environment']): CompiledTelemetry {
  const { target, metrics, accessLogs, tracing } = message;
  return {
    target,
    metrics: metrics.length > 0 ? compileMetrics(metrics) : undefined,
    loggers: accessLogs?.loggers.map((logger) => compileLogger(logger, environment)),
    tracing: tracing && compileTracing(tracing, environment),
  };
}

/** A label's value by CEL; `unknown` where it has none for a request, as Istio says. @throws {Error} with the position */
export function compileTag(expression: string): (facts: TelemetryFacts) => string {
  const { evaluate } = compileCel(expression, telemetryAttributes);
  return (facts) => (celText(evaluate(facts)) ?? UNKNOWN).slice(0, LONGEST_LABEL) || UNKNOWN;
}

/** Whether a line is to be written. @throws {Error} with the position */
export function compileFilter(expression: string): (facts: TelemetryFacts) => boolean {
  const { evaluate } = compileCel(expression, telemetryAttributes, 'bool');
  return (facts) => evaluate(facts) === true;
}

/** Names of labels (Prometheus, "Data model"). `le` is of histograms. */
export const isLabelName = (name: string): boolean =>
  /^[a-zA-Z_][a-zA-Z0-9_]{0,127}$/.test(name) && !name.startsWith('__') && name !== 'le';

function compileMetrics(changes: readonly MetricChange[]): CompiledMetrics {
  const expressions = new Map<string, number>();
  const families = new Map<string, CompiledMetricChange>();
  for (const { family, disabled, tags } of changes) {
    const found = new Map<string, number>();
    for (const { name, expression } of tags) {
      if (!isLabelName(name)) throw new Error(`${JSON.stringify(name)} is no name of a label`);
      if (expression !== '' && !expressions.has(expression)) expressions.set(expression, expressions.size);
      found.set(name, expression === '' ? -1 : (expressions.get(expression) ?? -1));
    }
    if (found.size > MOST_TAGS || expressions.size > MOST_TAGS) throw new Error(`more than ${MOST_TAGS} tags`);
    families.set(family, { disabled, changes: found });
  }
  return { tags: [...expressions.keys()].map(compileTag), families };
}

function compileLogger(logger: AccessLogger, environment: LogFormatOptions['environment']): CompiledLogger {
  const { provider, stderr, omitEmptyValues, filter, format } = logger;
  const options = { omitEmptyValues, environment };
  const write =
    format?.$case === 'json'
      ? compileJsonFormat(JSON.parse(format.value) as Record<string, unknown>, options)
      : compileTextFormat(format?.value ?? '', options);
  if (filter === '') return { stderr, line: write };
  try {
    const takes = compileFilter(filter);
    return { stderr, line: (facts) => (takes(facts) ? write(facts) : undefined) };
  } catch (error) {
    throw new Error(`filter of ${provider}: ${errorMessage(error)}`);
  }
}

function compileTracing(tracing: Tracing, environment: LogFormatOptions['environment']): CompiledTracing {
  const { provider, receiver, samplingPerMillion, tags, istioTags, stopContext } = tracing;
  if (!receiver?.to) throw new Error(`provider ${provider} of spans has no receiver`);
  return {
    provider,
    receiver,
    perMillion: samplingPerMillion,
    tags: tags.map((tag) => ({ name: tag.name, read: tagReader(tag, environment) })),
    istioTags,
    stopContext,
  };
}

function tagReader(
  { source, defaultValue, name }: SpanTag,
  environment: LogFormatOptions['environment'],
): (facts: TelemetryFacts) => string | undefined {
  const fallback = defaultValue === '' ? undefined : defaultValue;
  switch (source?.$case) {
    case 'literal': {
      const { value } = source;
      return () => value;
    }
    case 'header': {
      const header = source.value.toLowerCase();
      return (facts) => facts.requestHeader(header) ?? fallback;
    }
    case 'environment': {
      const value = environment(source.value) ?? fallback;
      return () => value;
    }
    case 'format': {
      const read = compileFormatter(source.value, environment);
      return (facts) => read(facts) || undefined;
    }
    default:
      throw new Error(`tag ${name} has no value`);
  }
}
