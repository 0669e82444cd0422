/** Where a request that may be traced begins: its place in the caller's trace, whether it is sampled, and the headers with which it goes on. */
import type { CompiledTracing } from '../../common/decision/telemetry-model.ts';
import { readTraceContext, traceFieldNames, traceFields } from '../../common/decision/trace-context.ts';
import type { Fields } from '../../common/http/types.ts';

/** The span of one request. */
export interface RequestSpan {
  readonly tracing: CompiledTracing;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentId: string | undefined;
  readonly tracestate: string;
  /** Whether it is told when the request is over. */
  readonly sampled: boolean;
}

export interface SpanSource {
  randomHex(digits: number): string;
  /** From 0 to 1. */
  random(): number;
}

/** @param fields of the request as it goes on: those of trace contexts are replaced */
export function startSpan(tracing: CompiledTracing, fields: Fields, { randomHex, random }: SpanSource): RequestSpan {
  const came = readTraceContext(fields);
  const sampled = came.sampled ?? random() * MILLION < tracing.perMillion;
  const span = { traceId: came.traceId ?? randomHex(32), spanId: randomHex(16), sampled };
  drop(fields);
  if (!tracing.stopContext) fields.push(...traceFields(span, came, tracing.receiver));
  return { ...span, tracing, parentId: came.parentId, tracestate: came.tracestate };
}

const MILLION = 1_000_000;

function drop(fields: Fields): void {
  let to = 0;
  for (let i = 0; i < fields.length; i += 2) {
    const [name = '', value = ''] = [fields[i], fields[i + 1]];
    if (traceFieldNames.has(name)) continue;
    fields[to++] = name;
    fields[to++] = value;
  }
  fields.length = to;
}
