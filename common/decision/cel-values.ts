/**
 * Values of the Common Expression Language and what can be done with them (CEL specification, "Values", "Standard definitions"): operators,
 * conversions, tests of texts, parts of times. What has no value comes to a CelError, which is a value itself; nothing here throws.
 */
import type { BinaryOperator } from './cel-syntax.ts';

export type CelType = 'null' | 'bool' | 'int' | 'double' | 'string' | 'duration' | 'timestamp' | 'list' | 'any';

/** A length of time, or a point in time since 1970. */
export class CelTime {
  readonly type: 'duration' | 'timestamp';
  readonly ms: number;

  constructor(type: 'duration' | 'timestamp', ms: number) {
    this.type = type;
    this.ms = ms;
  }
}

/** What an expression comes to where it has no value: an attribute is absent, a number too large. It is a value, as throwing is slow. */
export class CelError {
  readonly message: string;

  constructor(message: string) {
    this.message = message;
  }
}

export type CelValue = null | boolean | bigint | number | string | CelTime | readonly CelValue[] | CelError;

/** As a tag or a line shows it; undefined for an error and for null. */
export function celText(value: CelValue): string | undefined {
  if (value === null || value instanceof CelError) return undefined;
  if (value instanceof CelTime) return value.type === 'duration' ? `${value.ms / 1000}s` : new Date(value.ms).toISOString();
  if (Array.isArray(value)) return value.map((item: CelValue) => celText(item) ?? '').join(',');
  return String(value);
}

const LEAST_INT = -(2n ** 63n);
const MOST_INT = 2n ** 63n - 1n;
/** CEL specification, "Timestamp" and "Duration": the years 1 to 9999, and some 10,000 years either way. Beyond them Date throws. */
const FIRST_MS = Date.parse('0001-01-01T00:00:00Z');
const LAST_MS = Date.parse('9999-12-31T23:59:59.999Z');
const LONGEST_MS = 315_576_000_000_000;
/** Of a text that is put together; attributes are no longer than a request's head may be. */
const LONGEST_TEXT = 16_384;

export const isList = (value: CelValue): value is readonly CelValue[] => Array.isArray(value);

export function typeOf(value: CelValue): CelType {
  if (value === null) return 'null';
  if (value instanceof CelTime) return value.type;
  if (isList(value)) return 'list';
  switch (typeof value) {
    case 'boolean':
      return 'bool';
    case 'bigint':
      return 'int';
    case 'number':
      return 'double';
    case 'string':
      return 'string';
    default:
      return 'any';
  }
}

export const notOf = (value: CelValue, type: string): CelError =>
  value instanceof CelError ? value : new CelError(`${typeOf(value)} where ${type} is needed`);

export const firstError = (values: readonly CelValue[]): CelValue => values.find((value) => value instanceof CelError) ?? values;

export const inRange = (value: bigint): CelValue =>
  value < LEAST_INT || value > MOST_INT ? new CelError('the number is too large') : value;

const timeOf = (type: CelTime['type'], ms: number): CelValue =>
  (type === 'duration' ? Math.abs(ms) <= LONGEST_MS : ms >= FIRST_MS && ms <= LAST_MS)
    ? new CelTime(type, ms)
    : new CelError(`the ${type} is out of range`);

export type Arithmetic = Exclude<BinaryOperator, '||' | '&&' | 'in'>;

const isNumber = (type: CelType): boolean => type === 'int' || type === 'double';
const isTime = (type: CelType): boolean => type === 'duration' || type === 'timestamp';

/** undefined where the operator does not go with these; 'any' where that is not known yet. */
export function resultType(operator: Arithmetic, left: CelType, right: CelType): CelType | undefined {
  const unknown = left === 'any' || right === 'any';
  switch (operator) {
    case '==':
    case '!=':
      return unknown || left === right || (isNumber(left) && isNumber(right)) || left === 'null' || right === 'null' ? 'bool' : undefined;
    case '<':
    case '<=':
    case '>':
    case '>=': {
      const ordered = (type: CelType): boolean => isNumber(type) || isTime(type) || type === 'string' || type === 'bool';
      return unknown || (left === right && ordered(left)) || (isNumber(left) && isNumber(right)) ? 'bool' : undefined;
    }
    default:
  }
  if (unknown) return 'any';
  if (isNumber(left)) return left === right && (operator !== '%' || left === 'int') ? left : undefined;
  if (operator === '+' && left === right && (left === 'string' || left === 'list' || left === 'duration')) return left;
  if (operator === '+' && isTime(left) && isTime(right) && left !== right) return 'timestamp';
  if (operator === '-' && isTime(left)) return right === left ? 'duration' : right === 'duration' ? 'timestamp' : undefined;
  return undefined;
}

const ordered =
  (holds: (order: number) => boolean) =>
  (left: CelValue, right: CelValue): CelValue => {
    const order = compare(left, right);
    return typeof order === 'number' ? holds(order) : order;
  };

export const operators: Readonly<Record<Arithmetic, (left: CelValue, right: CelValue) => CelValue>> = {
  '==': (left, right) => eitherError(left, right) ?? equal(left, right),
  '!=': (left, right) => eitherError(left, right) ?? !equal(left, right),
  '<': ordered((order) => order < 0),
  '<=': ordered((order) => order <= 0),
  '>': ordered((order) => order > 0),
  '>=': ordered((order) => order >= 0),
  '+': (left, right) => {
    if (typeof left === 'string' && typeof right === 'string')
      return left.length + right.length > LONGEST_TEXT ? new CelError(`a text longer than ${LONGEST_TEXT} characters`) : left + right;
    if (isList(left) && isList(right))
      return left.length + right.length > LONGEST_TEXT ? new CelError('a list that is too long') : [...left, ...right];
    if (left instanceof CelTime && right instanceof CelTime && (left.type === 'duration' || right.type === 'duration'))
      return timeOf(left.type === right.type ? left.type : 'timestamp', left.ms + right.ms);
    return arithmetic(
      left,
      right,
      (a, b) => a + b,
      (a, b) => a + b,
    );
  },
  '-': (left, right) => {
    if (left instanceof CelTime && right instanceof CelTime && (left.type === 'timestamp' || right.type === 'duration'))
      return timeOf(left.type === right.type ? 'duration' : 'timestamp', left.ms - right.ms);
    return arithmetic(
      left,
      right,
      (a, b) => a - b,
      (a, b) => a - b,
    );
  },
  '*': (left, right) =>
    arithmetic(
      left,
      right,
      (a, b) => a * b,
      (a, b) => a * b,
    ),
  '/': (left, right) =>
    right === 0n
      ? new CelError('division by zero')
      : arithmetic(
          left,
          right,
          (a, b) => a / b,
          (a, b) => a / b,
        ),
  '%': (left, right) =>
    right === 0n
      ? new CelError('division by zero')
      : arithmetic(
          left,
          right,
          (a, b) => a % b,
          () => Number.NaN,
        ),
};

const eitherError = (left: CelValue, right: CelValue): CelError | undefined =>
  left instanceof CelError ? left : right instanceof CelError ? right : undefined;

function arithmetic(
  left: CelValue,
  right: CelValue,
  ints: (a: bigint, b: bigint) => bigint,
  doubles: (a: number, b: number) => number,
): CelValue {
  if (typeof left === 'bigint' && typeof right === 'bigint') return inRange(ints(left, right));
  if (typeof left === 'number' && typeof right === 'number') return doubles(left, right);
  return eitherError(left, right) ?? new CelError(`no operator for ${typeOf(left)} and ${typeOf(right)}`);
}

export function equal(left: CelValue, right: CelValue): boolean {
  if (left instanceof CelTime && right instanceof CelTime) return left.type === right.type && left.ms === right.ms;
  if (isList(left) && isList(right)) return left.length === right.length && left.every((item, i) => equal(item, right[i] ?? null));
  // Numbers of both kinds: 1 is 1.0.
  if (typeof left === 'bigint' && typeof right === 'number') return Number(left) === right;
  if (typeof left === 'number' && typeof right === 'bigint') return left === Number(right);
  return left === right;
}

function compare(left: CelValue, right: CelValue): number | CelError {
  const order = (a: string | number | bigint, b: string | number | bigint): number =>
    a < b ? -1 : a > b ? 1 : a <= b && a >= b ? 0 : Number.NaN;
  if (left instanceof CelTime && right instanceof CelTime && left.type === right.type) return order(left.ms, right.ms);
  if (typeof left === 'string' && typeof right === 'string') return order(left, right);
  if (typeof left === 'boolean' && typeof right === 'boolean') return order(Number(left), Number(right));
  if ((typeof left === 'bigint' || typeof left === 'number') && (typeof right === 'bigint' || typeof right === 'number'))
    return order(left, right);
  return eitherError(left, right) ?? new CelError(`no order between ${typeOf(left)} and ${typeOf(right)}`);
}

export interface Conversion {
  readonly from: readonly CelType[];
  readonly to: CelType;
  convert(value: CelValue): CelValue;
}

const WHOLE = /^[+-]?[0-9]{1,19}$/;
const DURATION = /^-?(?:[0-9]+(?:\.[0-9]+)?(?:h|ms|us|ns|m|s))+$/;
const UNIT_MS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1, us: 0.001, ns: 0.000001 };

export const conversions: Readonly<Record<string, Conversion>> = {
  size: {
    from: ['string', 'list'],
    to: 'int',
    // Code points, as CEL counts.
    convert: (value) =>
      typeof value === 'string' ? BigInt([...value].length) : isList(value) ? BigInt(value.length) : notOf(value, 'string'),
  },
  string: {
    from: ['string', 'bool', 'int', 'double', 'duration', 'timestamp'],
    to: 'string',
    convert: (value) => celText(value) ?? notOf(value, 'string'),
  },
  int: {
    from: ['int', 'double', 'string', 'timestamp'],
    to: 'int',
    convert: (value) => {
      if (typeof value === 'string')
        return WHOLE.test(value) ? inRange(BigInt(value)) : new CelError(`${JSON.stringify(value)} is no number`);
      if (value instanceof CelTime) return BigInt(Math.trunc(value.ms / 1000));
      if (typeof value === 'number')
        return Number.isFinite(value) ? inRange(BigInt(Math.trunc(value))) : new CelError('the number is too large');
      return typeof value === 'bigint' ? value : notOf(value, 'int');
    },
  },
  double: {
    from: ['int', 'double', 'string'],
    to: 'double',
    convert: (value) => {
      const read =
        typeof value === 'string' && value.trim() === ''
          ? Number.NaN
          : Number(typeof value === 'bigint' || typeof value === 'string' || typeof value === 'number' ? value : Number.NaN);
      return Number.isNaN(read) ? new CelError('no number') : read;
    },
  },
  bool: {
    from: ['bool', 'string'],
    to: 'bool',
    convert: (value) =>
      typeof value === 'boolean' ? value : value === 'true' || value === 'false' ? value === 'true' : notOf(value, 'bool'),
  },
  duration: {
    from: ['duration', 'string'],
    to: 'duration',
    convert: (value) => {
      if (typeof value !== 'string') return value;
      if (!DURATION.test(value)) return new CelError(`${JSON.stringify(value)} is no duration`);
      let ms = 0;
      for (const [, number = '', unit = ''] of value.matchAll(/([0-9.]+)(h|ms|us|ns|m|s)/g)) ms += Number(number) * (UNIT_MS[unit] ?? 0);
      return timeOf('duration', value.startsWith('-') ? -ms : ms);
    },
  },
  timestamp: {
    from: ['timestamp', 'string', 'int'],
    to: 'timestamp',
    convert: (value) => {
      if (value instanceof CelTime) return value;
      const ms = typeof value === 'bigint' ? Number(value) * 1000 : typeof value === 'string' ? Date.parse(value) : Number.NaN;
      return Number.isNaN(ms) ? new CelError(`${JSON.stringify(String(value))} is no time`) : timeOf('timestamp', ms);
    },
  },
};

export const textTests: Readonly<Record<string, (value: string, other: string) => boolean>> = {
  contains: (value, other) => value.includes(other),
  startsWith: (value, other) => value.startsWith(other),
  endsWith: (value, other) => value.endsWith(other),
  // Compiled ahead of time.
  matches: () => false,
};

export const timeParts: Readonly<Record<string, (time: Date) => number>> = {
  getFullYear: (time) => time.getUTCFullYear(),
  getMonth: (time) => time.getUTCMonth(),
  getDate: (time) => time.getUTCDate(),
  getDayOfMonth: (time) => time.getUTCDate() - 1,
  getDayOfWeek: (time) => time.getUTCDay(),
  getHours: (time) => time.getUTCHours(),
  getMinutes: (time) => time.getUTCMinutes(),
  getSeconds: (time) => time.getUTCSeconds(),
  getMilliseconds: (time) => time.getUTCMilliseconds(),
};
