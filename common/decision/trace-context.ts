/**
 * The trace that a request belongs to, in the two families of headers that carry it: W3C's `traceparent` and `tracestate` (W3C, "Trace Context"),
 * and B3 as one header or several (openzipkin/b3-propagation). Both are read; a request goes on in the forms in which it came and in those of
 * who gets the spans. What is malformed is no trace.
 */

export interface TraceContext {
  /** 32 hexadecimal digits; undefined where only a decision came. */
  readonly traceId: string | undefined;
  /** 16 digits: the caller's span; undefined where none came. */
  readonly parentId: string | undefined;
  /** What was decided about it; undefined where nobody has. */
  readonly sampled: boolean | undefined;
  readonly tracestate: string;
  /** In which forms it came. */
  readonly w3c: boolean;
  readonly b3: 'none' | 'single' | 'multi';
}

/** Name, value, name, value, …; names in lower case. */
export type FieldPairs = readonly string[];

const NAMES = [
  'traceparent',
  'tracestate',
  'b3',
  'x-b3-traceid',
  'x-b3-spanid',
  'x-b3-parentspanid',
  'x-b3-sampled',
  'x-b3-flags',
] as const;

/** Headers that are of this. */
export const traceFieldNames: ReadonlySet<string> = new Set(NAMES);

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
const B3_ID = /^(?:[0-9a-f]{16}|[0-9a-f]{32})$/;
const SPAN_ID = /^[0-9a-f]{16}$/;
const NOTHING = /^0+$/;
/** Of W3C's 512 characters that have to be passed on, with some to spare. */
const LONGEST_STATE = 2048;

const NO_CONTEXT: TraceContext = { traceId: undefined, parentId: undefined, sampled: undefined, tracestate: '', w3c: false, b3: 'none' };

/** W3C's counts where both came. Never throws. */
export function readTraceContext(fields: FieldPairs): TraceContext {
  const found = new Map<string, string>();
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] ?? '';
    // A second traceparent makes both worthless; lists of tracestate are one list.
    if (traceFieldNames.has(name)) found.set(name, found.has(name) ? `${found.get(name)},${fields[i + 1]}` : (fields[i + 1] ?? ''));
  }
  if (found.size === 0) return NO_CONTEXT;
  const b3 = readB3(found);
  const [, version = 'ff', traceId = '', parentId = '', flags = '', more] = TRACEPARENT.exec(found.get('traceparent') ?? '') ?? [];
  const isValid = version !== 'ff' && !NOTHING.test(traceId) && !NOTHING.test(parentId) && (version !== '00' || more === undefined);
  if (!isValid) return b3;
  const tracestate = found.get('tracestate') ?? '';
  return {
    traceId,
    parentId,
    sampled: (Number.parseInt(flags, 16) & 1) === 1,
    tracestate: tracestate.length > LONGEST_STATE ? '' : tracestate,
    w3c: true,
    b3: b3.b3,
  };
}

function readB3(found: ReadonlyMap<string, string>): TraceContext {
  const single = found.get('b3')?.toLowerCase();
  if (single !== undefined) {
    const [first = '', spanId = '', decision = ''] = single.split('-');
    const only = single.includes('-') ? undefined : decisionOf(first);
    if (only !== undefined) return { ...NO_CONTEXT, sampled: only, b3: 'single' };
    if (isTrace(first, spanId))
      return { ...NO_CONTEXT, traceId: first.padStart(32, '0'), parentId: spanId, sampled: decisionOf(decision), b3: 'single' };
  }
  const traceId = found.get('x-b3-traceid')?.toLowerCase() ?? '';
  const spanId = found.get('x-b3-spanid')?.toLowerCase() ?? '';
  const sampled = found.get('x-b3-flags') === '1' ? true : decisionOf(found.get('x-b3-sampled')?.toLowerCase() ?? '');
  if (isTrace(traceId, spanId)) return { ...NO_CONTEXT, traceId: traceId.padStart(32, '0'), parentId: spanId, sampled, b3: 'multi' };
  return sampled === undefined ? NO_CONTEXT : { ...NO_CONTEXT, sampled, b3: 'multi' };
}

const isTrace = (traceId: string, spanId: string): boolean =>
  B3_ID.test(traceId) && SPAN_ID.test(spanId) && !NOTHING.test(traceId) && !NOTHING.test(spanId);

function decisionOf(value: string): boolean | undefined {
  if (value === '1' || value === 'd' || value === 'true') return true;
  return value === '0' || value === 'false' ? false : undefined;
}

export interface OwnSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly sampled: boolean;
}

/** The headers with which a request goes on below a span. @param wanted forms that it is given in any case */
export function traceFields(span: OwnSpan, came: TraceContext, wanted: { readonly w3c: boolean; readonly b3: boolean }): string[] {
  const { traceId, spanId, sampled } = span;
  const fields: string[] = [];
  if (wanted.w3c || came.w3c) {
    fields.push('traceparent', `00-${traceId}-${spanId}-0${sampled ? 1 : 0}`);
    if (came.tracestate !== '') fields.push('tracestate', came.tracestate);
  }
  if (came.b3 === 'single')
    fields.push('b3', `${traceId}-${spanId}-${sampled ? 1 : 0}${came.parentId === undefined ? '' : `-${came.parentId}`}`);
  if (wanted.b3 || came.b3 === 'multi') {
    fields.push('x-b3-traceid', traceId, 'x-b3-spanid', spanId, 'x-b3-sampled', sampled ? '1' : '0');
    if (came.parentId !== undefined) fields.push('x-b3-parentspanid', came.parentId);
  }
  return fields;
}
