/** Telemetry from a file, as proto/waypoint.proto has it. */
import {
  type AccessLogger,
  type BackendRef,
  type MetricChange,
  type ReceiverHeader,
  type ServiceTelemetry,
  SpanProtocol,
  type SpanReceiver,
  type SpanTag,
  type Tracing,
} from '../../common/codec/gen/waypoint.ts';
import type { YamlNode } from '../../common/state/yaml-node.ts';
import { enumWords, flag, list, maybe, number, one, text } from './static-yaml.ts';

export function telemetryFrom(node: YamlNode): ServiceTelemetry {
  node.allowKeys(['target', 'metrics', 'accessLogs', 'tracing']);
  return {
    target: node.required('target').text(),
    metrics: list(node, 'metrics', metricFrom),
    accessLogs: maybe(node, 'accessLogs', (logs) => {
      logs.allowKeys(['loggers']);
      return { loggers: list(logs, 'loggers', loggerFrom) };
    }),
    tracing: maybe(node, 'tracing', tracingFrom),
  };
}

function metricFrom(node: YamlNode): MetricChange {
  node.allowKeys(['family', 'disabled', 'tags']);
  return {
    family: node.required('family').text(),
    disabled: flag(node, 'disabled'),
    tags: list(node, 'tags', (tag) => {
      tag.allowKeys(['name', 'expression']);
      return { name: text(tag, 'name'), expression: text(tag, 'expression') };
    }),
  };
}

function loggerFrom(node: YamlNode): AccessLogger {
  const found = one(node, ['text', 'json'], ['provider', 'stderr', 'omitEmptyValues', 'filter']);
  return {
    provider: text(node, 'provider'),
    stderr: flag(node, 'stderr'),
    omitEmptyValues: flag(node, 'omitEmptyValues'),
    filter: text(node, 'filter'),
    format: found && { $case: found.key, value: found.value.text() },
  };
}

function tracingFrom(node: YamlNode): Tracing {
  node.allowKeys(['provider', 'receiver', 'samplingPerMillion', 'tags', 'istioTags', 'stopContext']);
  return {
    provider: text(node, 'provider'),
    receiver: maybe(node, 'receiver', receiverFrom),
    samplingPerMillion: number(node, 'samplingPerMillion', 1_000_000),
    tags: list(node, 'tags', tagFrom),
    istioTags: flag(node, 'istioTags'),
    stopContext: flag(node, 'stopContext'),
  };
}

function receiverFrom(node: YamlNode): SpanReceiver {
  node.allowKeys([
    'to',
    'protocol',
    'path',
    'timeoutMs',
    'headers',
    'maxTagLength',
    'shortTraceIds',
    'b3',
    'w3c',
    'environmentResource',
    'otelNames',
  ]);
  return {
    to: maybe(node, 'to', backendFrom),
    protocol: node.optional('protocol')?.choice(enumWords(SpanProtocol)) ?? SpanProtocol.OTLP_GRPC,
    path: text(node, 'path'),
    timeoutMs: number(node, 'timeoutMs'),
    headers: list(node, 'headers', headerFrom),
    maxTagLength: node.optional('maxTagLength')?.integer(65_536) ?? MAX_TAG_LENGTH,
    shortTraceIds: flag(node, 'shortTraceIds'),
    b3: flag(node, 'b3'),
    w3c: flag(node, 'w3c'),
    environmentResource: flag(node, 'environmentResource'),
    otelNames: flag(node, 'otelNames'),
  };
}

const MAX_TAG_LENGTH = 256;

function backendFrom(node: YamlNode): BackendRef {
  node.allowKeys(['namespace', 'hostname', 'port', 'subset']);
  return {
    namespace: text(node, 'namespace'),
    hostname: text(node, 'hostname'),
    port: number(node, 'port', 65_535),
    subset: text(node, 'subset'),
  };
}

function headerFrom(node: YamlNode): ReceiverHeader {
  const found = one(node, ['value', 'environment'], ['name']);
  return { name: text(node, 'name'), source: found && { $case: found.key, value: found.value.text() } };
}

function tagFrom(node: YamlNode): SpanTag {
  const found = one(node, ['literal', 'header', 'environment', 'format'], ['name', 'defaultValue']);
  return {
    name: text(node, 'name'),
    defaultValue: text(node, 'defaultValue'),
    source: found && { $case: found.key, value: found.value.text() },
  };
}
