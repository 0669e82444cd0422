/**
 * What of several Telemetry objects holds for one service at one waypoint: levels from the mesh to the service, each one changing what the levels
 * above it say (Istio, pilot/pkg/model/telemetry.go), with the mesh's own configuration under all of them.
 */

import { errorMessage } from '../../common/base/errors.ts';
import type { AccessLogger, BackendRef, MetricChange, ServiceTelemetry, SpanReceiver, Tracing } from '../../common/codec/gen/waypoint.ts';
import { SpanProtocol } from '../../common/codec/gen/waypoint.ts';
import { compileJsonFormat, compileTextFormat, ISTIO_JSON_FORMAT, ISTIO_TEXT_FORMAT } from '../../common/decision/log-format.ts';
import type {
  ExtensionProvider,
  FileAccessLogProvider,
  OpenTelemetryProvider,
  ProviderService,
  ZipkinProvider,
} from './extension-providers.ts';
import type { MeshConfig } from './mesh-config.ts';
import { isRecord } from './objects.ts';
import type { MetricOverride, Telemetry, TracingPart } from './telemetry.ts';

export interface TelemetryView {
  readonly mesh: MeshConfig;
  /** A service by which a provider is reached, or why there is none. */
  backend(service: ProviderService): BackendRef | string;
}

/** @param levels from the most general one to the most specific one @returns undefined where all is as it is without any */
export function mergeTelemetry(target: string, levels: readonly Telemetry[], view: TelemetryView): ServiceTelemetry | undefined {
  const metrics = mergeMetrics(levels, view);
  const loggers = mergeLogging(levels, view);
  const tracing = mergeTracing(levels, view);
  if (metrics.length === 0 && loggers === undefined && tracing === undefined) return undefined;
  return { target, metrics, accessLogs: loggers && { loggers }, tracing };
}

/**
 * Providers that an object names and that do not do what it wants of them.
 * @param othersTrace whether an object of another level names a provider of spans
 */
export function providerProblems(
  { metrics, accessLogging, tracing }: Telemetry,
  view: TelemetryView,
  othersTrace: () => boolean,
): string[] {
  const problems = new Set<string>();
  const check = (names: readonly string[], kinds: readonly ExtensionProvider['kind'][], what: string): void => {
    for (const name of names) {
      const problem = providerProblem(name, kinds, what, view);
      if (problem !== undefined) problems.add(problem);
    }
  };
  for (const { providers } of metrics) check(providers, ['prometheus'], 'metrics');
  for (const { providers } of accessLogging) check(providers, ['envoyFileAccessLog'], 'access logs');
  for (const { providers } of tracing) check(providers.slice(0, 1), ['opentelemetry', 'zipkin'], 'spans');
  for (const { providers } of tracing)
    if (providers.length > 1) problems.add(`of several providers of spans the first one counts: ${providers[0]}`);
  const traces = tracing.some(({ disabled }) => disabled !== true);
  if (
    traces &&
    tracing.every(({ providers }) => providers.length === 0) &&
    view.mesh.defaultProviders.tracing.length === 0 &&
    !othersTrace()
  )
    problems.add('tracing names no provider, neither does a level above, and the mesh has no default one');
  if (traces && !view.mesh.enableTracing) problems.add('the mesh has enableTracing: false, so nothing is traced');
  return [...problems];
}

/** Names of providers in the mesh's defaults that cannot be used. */
export function defaultProblems(view: TelemetryView): string[] {
  const { tracing, metrics, accessLogging } = view.mesh.defaultProviders;
  const problems = [
    ...tracing.slice(0, 1).map((name) => providerProblem(name, ['opentelemetry', 'zipkin'], 'spans', view)),
    ...metrics.map((name) => providerProblem(name, ['prometheus'], 'metrics', view)),
    ...accessLogging.map((name) => providerProblem(name, ['envoyFileAccessLog'], 'access logs', view)),
  ];
  const { accessLogFile } = view.mesh;
  if (accessLogFile !== '') {
    const logger = loggerOf('accessLogFile', meshFile(view.mesh), '', view.mesh);
    if (typeof logger === 'string') problems.push(logger);
  }
  return problems.filter((problem) => problem !== undefined);
}

/** Istio looks them up without regard to case. */
function providerNamed({ extensionProviders }: MeshConfig, name: string): ExtensionProvider | undefined {
  const exact = extensionProviders.get(name);
  if (exact) return exact;
  for (const [key, provider] of extensionProviders) if (key.toLowerCase() === name.toLowerCase()) return provider;
  return undefined;
}

function providerProblem(name: string, kinds: readonly ExtensionProvider['kind'][], what: string, view: TelemetryView): string | undefined {
  const provider = providerNamed(view.mesh, name);
  if (!provider) return `there is no provider ${name}`;
  if (provider.kind === 'unusable') return provider.problem;
  if (!kinds.includes(provider.kind)) return `provider ${name} is ${provider.kind}, which takes no ${what}`;
  if (provider.kind === 'envoyFileAccessLog') {
    const logger = loggerOf(name, provider, '', view.mesh);
    return typeof logger === 'string' ? logger : undefined;
  }
  if (provider.kind === 'opentelemetry' || provider.kind === 'zipkin') {
    const found = view.backend(provider.service);
    return typeof found === 'string' ? `provider ${name}: ${found}` : undefined;
  }
  return undefined;
}

function mergeMetrics(levels: readonly Telemetry[], { mesh }: TelemetryView): MetricChange[] {
  const families = new Map<string, { disabled: boolean; tags: Map<string, string> }>();
  // Prometheus is all that there is: parts for other providers change nothing of it.
  let providers: readonly string[] = mesh.defaultProviders.metrics.length > 0 ? mesh.defaultProviders.metrics : ['prometheus'];
  for (const part of levels.flatMap(({ metrics }) => metrics)) {
    if (part.providers.length > 0) providers = part.providers;
    if (providers.some((name) => providerNamed(mesh, name)?.kind === 'prometheus'))
      for (const override of part.overrides) change(families, override);
  }
  return [...families]
    .map(([family, { disabled, tags }]) => ({
      family,
      disabled,
      tags: [...tags].map(([name, expression]) => ({ name, expression })).sort((a, b) => (a.name < b.name ? -1 : 1)),
    }))
    .filter(({ disabled, tags }) => disabled || tags.length > 0)
    .sort((a, b) => (a.family < b.family ? -1 : 1));
}

function change(families: Map<string, { disabled: boolean; tags: Map<string, string> }>, override: MetricOverride): void {
  for (const family of override.families) {
    const found = families.get(family) ?? { disabled: false, tags: new Map<string, string>() };
    families.set(family, found);
    found.disabled = override.disabled ?? found.disabled;
    for (const [name, expression] of override.tags) found.tags.set(name, expression);
  }
}

/** Where a log goes that names no provider, and the mesh has no default one. */
const IMPLICIT_LOGGER = 'envoy';

function mergeLogging(levels: readonly Telemetry[], { mesh }: TelemetryView): AccessLogger[] | undefined {
  const defaults = mesh.defaultProviders.accessLogging;
  const said = levels.filter(({ accessLogging }) => accessLogging.length > 0);
  if (said.length === 0 && defaults.length === 0) {
    const logger = mesh.accessLogFile === '' ? '' : loggerOf('accessLogFile', meshFile(mesh), '', mesh);
    return typeof logger === 'string' ? undefined : [logger];
  }
  const implied = defaults.length > 0 ? defaults : [IMPLICIT_LOGGER];
  // The most specific level that names providers says which there are; a part without any means those that were named before it.
  let scope: readonly string[] = implied;
  for (const { accessLogging } of said) {
    const named = accessLogging.flatMap(({ providers }) => providers);
    if (named.length > 0) scope = named;
  }
  const found = new Map<string, string | undefined>(said.length === 0 ? defaults.map((name) => [name, '']) : []);
  let current: readonly string[] = implied;
  for (const { providers, disabled, filter } of said.flatMap(({ accessLogging }) => accessLogging)) {
    if (providers.length > 0) current = providers;
    for (const name of current) if (scope.includes(name)) found.set(name, disabled ? undefined : filter);
  }
  const loggers = [...found]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([name, filter]) => {
      const provider = filter === undefined ? undefined : providerNamed(mesh, name);
      return provider?.kind === 'envoyFileAccessLog' ? [loggerOf(name, provider, filter ?? '', mesh)] : [];
    });
  const asked = [...found.values()].some((filter) => filter !== undefined);
  const usableOnes = usable(loggers);
  // Nobody asked for silence where none of the providers can be used.
  return asked && usableOnes.length === 0 ? undefined : usableOnes;
}

const usable = (loggers: readonly (AccessLogger | string)[]): AccessLogger[] => loggers.filter((logger) => typeof logger !== 'string');

const meshFile = ({ accessLogFile }: MeshConfig): FileAccessLogProvider => ({
  kind: 'envoyFileAccessLog',
  path: accessLogFile,
  format: undefined,
  omitEmptyValues: false,
});

/** A string says why it cannot be used. */
function loggerOf(name: string, provider: FileAccessLogProvider, filter: string, mesh: MeshConfig): AccessLogger | string {
  const { path, format, omitEmptyValues } = provider;
  const stderr = path === '/dev/stderr';
  if (!stderr && path !== '/dev/stdout')
    return `provider ${name}: ${path} is neither /dev/stdout nor /dev/stderr, and a waypoint has no other files`;
  const isOfMesh = name === IMPLICIT_LOGGER || name === 'accessLogFile';
  const options = { omitEmptyValues, environment: () => undefined };
  const base = { provider: name, stderr, omitEmptyValues, filter };
  try {
    if (isOfMesh && format === undefined && mesh.accessLogEncoding === 'JSON') {
      const labels: unknown = mesh.accessLogFormat === '' ? ISTIO_JSON_FORMAT : JSON.parse(mesh.accessLogFormat);
      if (!isRecord(labels)) throw new Error('accessLogFormat is no object of JSON');
      compileJsonFormat(labels, options);
      return { ...base, format: { $case: 'json', value: JSON.stringify(labels) } };
    }
    if (format && 'labels' in format) {
      compileJsonFormat(format.labels, options);
      return { ...base, format: { $case: 'json', value: JSON.stringify(format.labels) } };
    }
    const text = format?.text ?? (isOfMesh ? mesh.accessLogFormat : '');
    compileTextFormat(text === '' ? ISTIO_TEXT_FORMAT : text, options);
    return { ...base, format: { $case: 'text', value: text === '' ? ISTIO_TEXT_FORMAT : text } };
  } catch (error) {
    return `provider ${name}: ${errorMessage(error)}`;
  }
}

function mergeTracing(levels: readonly Telemetry[], view: TelemetryView): Tracing | undefined {
  const { mesh } = view;
  const parts = levels.flatMap(({ tracing }) => tracing);
  const latest = <T>(read: (part: TracingPart) => T | undefined): T | undefined => parts.map(read).findLast((value) => value !== undefined);
  const name = latest(({ providers: [first] }) => first) ?? mesh.defaultProviders.tracing[0];
  const provider = name === undefined ? undefined : providerNamed(mesh, name);
  if (!mesh.enableTracing || latest(({ disabled }) => disabled) === true) return undefined;
  if (name === undefined || (provider?.kind !== 'opentelemetry' && provider?.kind !== 'zipkin')) return undefined;
  const to = view.backend(provider.service);
  if (typeof to === 'string') return undefined;
  return {
    provider: name,
    receiver: receiverOf(provider, to),
    samplingPerMillion: Math.round((latest(({ percent }) => percent) ?? mesh.tracingSampling) * 10_000),
    tags: [...(latest(({ tags }) => tags) ?? [])],
    istioTags: latest(({ istioTags }) => istioTags) ?? true,
    stopContext: latest(({ stopContext }) => stopContext) ?? false,
  };
}

function receiverOf(provider: OpenTelemetryProvider | ZipkinProvider, to: BackendRef): SpanReceiver {
  const { timeoutMs, maxTagLength } = provider;
  const headers = provider.headers.map((header) => ({
    name: header.name,
    source: 'value' in header ? { $case: 'value' as const, value: header.value } : { $case: 'environment' as const, value: header.envName },
  }));
  const common = { to, timeoutMs, maxTagLength, headers };
  if (provider.kind === 'zipkin') {
    const { path, enable64bitTraceId, w3c } = provider;
    return {
      ...common,
      protocol: SpanProtocol.ZIPKIN_JSON,
      path,
      shortTraceIds: enable64bitTraceId,
      b3: true,
      w3c,
      environmentResource: false,
      otelNames: false,
    };
  }
  const protocol = provider.protocol === 'grpc' ? SpanProtocol.OTLP_GRPC : SpanProtocol.OTLP_HTTP;
  const { path, environmentResource } = provider;
  const otelNames = provider.serviceAttributes === 'OTEL_SEMANTIC_CONVENTIONS';
  return { ...common, protocol, path, shortTraceIds: false, b3: false, w3c: true, environmentResource, otelNames };
}
