/**
 * Expressions of the Common Expression Language over attributes of a request (CEL specification; Envoy, "Attributes"), compiled once into a
 * function of the request. Types are checked when it is compiled as far as they are known, so that a status code that is compared with a text
 * is refused instead of never being equal. An expression reads no clock, changes nothing and cannot run for long: it has no loops.
 *
 * Longer than most: values, types, operators and functions are one table of the language.
 */
import { type BinaryOperator, type CelNode, CelSyntaxError, parseCel } from './cel-syntax.ts';

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

/** An attribute's value, undefined where this request has none; or values by name, as those of headers. */
export type CelAttribute<Subject> =
  | { readonly type: Exclude<CelType, 'any'>; read(subject: Subject): CelValue | undefined }
  | { readonly entries: 'string'; read(subject: Subject, name: string): string | undefined };

/** By their path: `request.headers`, `response.code`. */
export type CelAttributes<Subject> = ReadonlyMap<string, CelAttribute<Subject>>;

export interface CompiledCel<Subject> {
  readonly type: CelType;
  /** Never throws. */
  evaluate(subject: Subject): CelValue;
}

/**
 * @param wanted the type that it must have, where that matters: an expression of another one is refused
 * @throws {CelSyntaxError} with the position: syntax, an attribute or function that is not known, operands that do not go together
 */
export function compileCel<Subject>(source: string, attributes: CelAttributes<Subject>, wanted?: CelType): CompiledCel<Subject> {
  const compiled = new Compiler(attributes).compile(parseCel(source));
  if (wanted !== undefined && compiled.type !== wanted && compiled.type !== 'any')
    throw new CelSyntaxError(1, `the expression is of type ${compiled.type}, where ${wanted} is needed`);
  return { type: compiled.type, evaluate: compiled.run };
}

/** As a tag or a line shows it; undefined for an error and for null. */
export function celText(value: CelValue): string | undefined {
  if (value === null || value instanceof CelError) return undefined;
  if (value instanceof CelTime) return value.type === 'duration' ? `${value.ms / 1000}s` : new Date(value.ms).toISOString();
  if (Array.isArray(value)) return value.map((item: CelValue) => celText(item) ?? '').join(',');
  return String(value);
}

type Run<Subject> = (subject: Subject) => CelValue;

interface Node<Subject> {
  readonly type: CelType;
  readonly run: Run<Subject>;
  /** Where it is the same for every subject. */
  readonly constant?: CelValue;
}

const LEAST_INT = -(2n ** 63n);
const MOST_INT = 2n ** 63n - 1n;
/** Of a text that is put together; attributes are no longer than a request's head may be. */
const LONGEST_TEXT = 16_384;

const constant = <Subject>(type: CelType, value: CelValue): Node<Subject> => ({ type, run: () => value, constant: value });

class Compiler<Subject> {
  readonly #attributes: CelAttributes<Subject>;
  readonly #roots: ReadonlySet<string>;

  constructor(attributes: CelAttributes<Subject>) {
    this.#attributes = attributes;
    this.#roots = new Set([...attributes.keys()].map((path) => path.split('.')[0] ?? ''));
  }

  compile(node: CelNode): Node<Subject> {
    switch (node.kind) {
      case 'literal':
        return constant(typeOf(node.value), node.value);
      case 'list': {
        const items = node.items.map((item) => this.compile(item));
        const runs = items.map(({ run }) => run);
        if (items.every((item) => item.constant !== undefined))
          return constant(
            'list',
            items.map((item) => item.constant ?? null),
          );
        return { type: 'list', run: (subject) => firstError(runs.map((run) => run(subject))) };
      }
      case 'name':
      case 'member':
      case 'index':
        return this.#attribute(node) ?? this.#index(node);
      case 'unary':
        return this.#unary(node.operator, this.compile(node.of), node.at);
      case 'binary':
        return this.#binary(node);
      case 'choice': {
        const [condition, yes, no] = [this.compile(node.condition), this.compile(node.yes), this.compile(node.no)];
        needs(condition, ['bool'], node.condition.at, 'a condition');
        const run: Run<Subject> = (subject) => {
          const chosen = condition.run(subject);
          if (typeof chosen !== 'boolean') return notOf(chosen, 'bool');
          return chosen ? yes.run(subject) : no.run(subject);
        };
        return { type: yes.type === no.type ? yes.type : 'any', run };
      }
      case 'call':
        return node.of === undefined ? this.#call(node.name, node.args, node.at) : this.#method(node, node.of);
    }
  }

  /** undefined where the node is no path of names. */
  #attribute(node: CelNode): Node<Subject> | undefined {
    const path = pathOf(node);
    if (path === undefined) return undefined;
    const [root = ''] = path;
    if (!this.#roots.has(root)) throw new CelSyntaxError(startOf(node), `there is no attribute ${root}`);
    for (let length = path.length; length > 0; length--) {
      const found = this.#attributes.get(path.slice(0, length).join('.'));
      if (!found) continue;
      const rest = path.slice(length);
      if ('entries' in found) {
        const [name] = rest;
        if (name === undefined) throw new CelSyntaxError(node.at, `${path.join('.')} is a map: one of its values is needed`);
        if (rest.length === 1) return { type: 'string', run: (subject) => found.read(subject, name) ?? absent(`${path.join('.')}`) };
      } else if (rest.length === 0) {
        const missing = absent(path.join('.'));
        return { type: found.type, run: (subject) => found.read(subject) ?? missing };
      }
      break;
    }
    throw new CelSyntaxError(node.at, `there is no attribute ${path.join('.')}`);
  }

  #map(node: CelNode): Extract<CelAttribute<Subject>, { entries: 'string' }> | undefined {
    const found = this.#attributes.get(pathOf(node)?.join('.') ?? '');
    return found && 'entries' in found ? found : undefined;
  }

  /** By an index that is worked out for each request. */
  #index(node: CelNode): Node<Subject> {
    if (node.kind !== 'index') throw new CelSyntaxError(node.at, 'only attributes have members');
    const index = this.compile(node.index);
    const map = this.#map(node.of);
    if (map) {
      needs(index, ['string'], node.index.at, 'the name of a value');
      return {
        type: 'string',
        run: (subject) => {
          const name = index.run(subject);
          return typeof name === 'string' ? (map.read(subject, name) ?? absent(name)) : notOf(name, 'string');
        },
      };
    }
    const of = this.compile(node.of);
    needs(of, ['list'], node.at, 'what has an index');
    needs(index, ['int'], node.index.at, 'an index');
    return {
      type: 'any',
      run: (subject) => {
        const [items, at] = [of.run(subject), index.run(subject)];
        if (!isList(items)) return notOf(items, 'list');
        return (typeof at === 'bigint' ? items[Number(at)] : undefined) ?? new CelError('no such index');
      },
    };
  }

  #unary(operator: '!' | '-', of: Node<Subject>, at: number): Node<Subject> {
    if (operator === '!') {
      needs(of, ['bool'], at, '!');
      return {
        type: 'bool',
        run: (subject) => {
          const value = of.run(subject);
          return typeof value === 'boolean' ? !value : notOf(value, 'bool');
        },
      };
    }
    needs(of, ['int', 'double', 'duration'], at, '-');
    const negative = (value: CelValue): CelValue => {
      if (typeof value === 'bigint') return inRange(-value);
      if (typeof value === 'number') return -value;
      if (value instanceof CelTime) return new CelTime('duration', -value.ms);
      return notOf(value, 'number');
    };
    if (of.constant !== undefined) return constant(of.type, negative(of.constant));
    return { type: of.type, run: (subject) => negative(of.run(subject)) };
  }

  #binary({ operator, left: leftNode, right: rightNode, at }: Extract<CelNode, { kind: 'binary' }>): Node<Subject> {
    if (operator === 'in') return this.#contains(leftNode, rightNode, at);
    const [left, right] = [this.compile(leftNode), this.compile(rightNode)];
    if (operator === '||' || operator === '&&') {
      needs(left, ['bool'], leftNode.at, operator);
      needs(right, ['bool'], rightNode.at, operator);
      return { type: 'bool', run: either(left.run, right.run, operator === '||') };
    }
    const type = resultType(operator, left.type, right.type);
    if (type === undefined) throw new CelSyntaxError(at, `${operator} does not go with ${left.type} and ${right.type}`);
    const apply = operators[operator];
    return { type, run: (subject) => apply(left.run(subject), right.run(subject)) };
  }

  #contains(leftNode: CelNode, rightNode: CelNode, at: number): Node<Subject> {
    const left = this.compile(leftNode);
    const map = this.#map(rightNode);
    if (map) {
      needs(left, ['string'], leftNode.at, 'the name of a value');
      return {
        type: 'bool',
        run: (subject) => {
          const name = left.run(subject);
          return typeof name === 'string' ? map.read(subject, name) !== undefined : notOf(name, 'string');
        },
      };
    }
    const right = this.compile(rightNode);
    needs(right, ['list'], at, 'the right side of in');
    return {
      type: 'bool',
      run: (subject) => {
        const [item, items] = [left.run(subject), right.run(subject)];
        if (item instanceof CelError) return item;
        return isList(items) ? items.some((each) => equal(item, each)) : notOf(items, 'list');
      },
    };
  }

  #call(name: string, args: readonly CelNode[], at: number): Node<Subject> {
    if (name === 'has') return this.#has(args, at);
    const [first, ...more] = args;
    const conversion = Object.hasOwn(conversions, name) ? conversions[name] : undefined;
    if (!conversion) throw new CelSyntaxError(at, `there is no function ${name}`);
    if (!first || more.length > 0) throw new CelSyntaxError(at, `${name} takes one argument`);
    const of = this.compile(first);
    needs(of, conversion.from, first.at, `${name}()`);
    const apply = (value: CelValue): CelValue => (value instanceof CelError ? value : conversion.convert(value));
    if (of.constant !== undefined) {
      const value = apply(of.constant);
      if (value instanceof CelError) throw new CelSyntaxError(first.at, value.message);
      return constant(conversion.to, value);
    }
    return { type: conversion.to, run: (subject) => apply(of.run(subject)) };
  }

  #has(args: readonly CelNode[], at: number): Node<Subject> {
    const [only, ...more] = args;
    const attribute = only && only.kind !== 'name' && more.length === 0 ? this.#attribute(only) : undefined;
    if (!attribute) throw new CelSyntaxError(at, 'has takes one attribute');
    return { type: 'bool', run: (subject) => !(attribute.run(subject) instanceof CelError) };
  }

  #method({ name, args, at }: Extract<CelNode, { kind: 'call' }>, ofNode: CelNode): Node<Subject> {
    const of = this.compile(ofNode);
    const [first, ...more] = args;
    const part = Object.hasOwn(timeParts, name) ? timeParts[name] : undefined;
    if (part) {
      needs(of, ['timestamp'], ofNode.at, `${name}()`);
      if (first) throw new CelSyntaxError(first.at, `${name} takes no argument: times are UTC`);
      return {
        type: 'int',
        run: (subject) => {
          const value = of.run(subject);
          return value instanceof CelTime ? BigInt(part(new Date(value.ms))) : notOf(value, 'timestamp');
        },
      };
    }
    if (name === 'size' && !first) return this.#call('size', [ofNode], at);
    const test = Object.hasOwn(textTests, name) ? textTests[name] : undefined;
    if (!test) throw new CelSyntaxError(at, `there is no function ${name}`);
    if (!first || more.length > 0) throw new CelSyntaxError(at, `${name} takes one argument`);
    needs(of, ['string'], ofNode.at, `${name}()`);
    const argument = this.compile(first);
    needs(argument, ['string'], first.at, `${name}()`);
    if (name === 'matches') return this.#matches(of, argument, first.at);
    return {
      type: 'bool',
      run: (subject) => {
        const [value, other] = [of.run(subject), argument.run(subject)];
        if (typeof value !== 'string') return notOf(value, 'string');
        return typeof other === 'string' ? test(value, other) : notOf(other, 'string');
      },
    };
  }

  #matches(of: Node<Subject>, argument: Node<Subject>, at: number): Node<Subject> {
    const source = argument.constant;
    if (typeof source !== 'string') throw new CelSyntaxError(at, 'matches takes a text that is written out');
    const pattern = patternOf(source, at);
    return {
      type: 'bool',
      run: (subject) => {
        const value = of.run(subject);
        return typeof value === 'string' ? pattern.test(value) : notOf(value, 'string');
      },
    };
  }
}

const LONGEST_PATTERN = 1024;
const NOT_RE2 = /\(\?(?:[=!]|<[=!])|\\[1-9]/;

/** Anywhere in the text, as RE2's partial match. Without the flag `u`, so that V8 can bound it (boundBacktracking). */
function patternOf(source: string, at: number): RegExp {
  if (source.length > LONGEST_PATTERN) throw new CelSyntaxError(at, `the pattern is longer than ${LONGEST_PATTERN} characters`);
  if (NOT_RE2.test(source)) throw new CelSyntaxError(at, 'look-around and back-references are not supported');
  try {
    return new RegExp(source);
  } catch (error) {
    throw new CelSyntaxError(at, (error as Error).message);
  }
}

/** `a.b["c"]` is the path a, b, c. */
function pathOf(node: CelNode): readonly string[] | undefined {
  if (node.kind === 'name') return [node.name];
  if (node.kind !== 'member' && node.kind !== 'index') return undefined;
  const name = node.kind === 'member' ? node.name : node.index.kind === 'literal' ? node.index.value : undefined;
  const before = typeof name === 'string' ? pathOf(node.of) : undefined;
  return before && typeof name === 'string' ? [...before, name] : undefined;
}

const startOf = (node: CelNode): number => (node.kind === 'member' || node.kind === 'index' ? startOf(node.of) : node.at);

const absent = (path: string): CelError => new CelError(`no such attribute: ${path}`);

const isList = (value: CelValue): value is readonly CelValue[] => Array.isArray(value);

function typeOf(value: CelValue): CelType {
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

function needs(node: Node<never>, types: readonly CelType[], at: number, who: string): void {
  if (node.type !== 'any' && !types.includes(node.type))
    throw new CelSyntaxError(at, `${who} takes ${types.join(' or ')}, and this is ${node.type}`);
}

const notOf = (value: CelValue, type: string): CelError =>
  value instanceof CelError ? value : new CelError(`${typeOf(value)} where ${type} is needed`);

const firstError = (values: readonly CelValue[]): CelValue => values.find((value) => value instanceof CelError) ?? values;

const inRange = (value: bigint): CelValue => (value < LEAST_INT || value > MOST_INT ? new CelError('the number is too large') : value);

/** One side decides, whatever the other comes to: that is what makes an absent attribute bearable (CEL specification, "Logical Operators"). */
function either<Subject>(left: Run<Subject>, right: Run<Subject>, decides: boolean): Run<Subject> {
  return (subject) => {
    const first = left(subject);
    if (first === decides) return decides;
    const second = right(subject);
    if (second === decides) return decides;
    if (typeof first !== 'boolean') return notOf(first, 'bool');
    return typeof second === 'boolean' ? !decides : notOf(second, 'bool');
  };
}

type Arithmetic = Exclude<BinaryOperator, '||' | '&&' | 'in'>;

const isNumber = (type: CelType): boolean => type === 'int' || type === 'double';
const isTime = (type: CelType): boolean => type === 'duration' || type === 'timestamp';

/** undefined where the operator does not go with these; 'any' where that is not known yet. */
function resultType(operator: Arithmetic, left: CelType, right: CelType): CelType | undefined {
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

const operators: Readonly<Record<Arithmetic, (left: CelValue, right: CelValue) => CelValue>> = {
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
    if (left instanceof CelTime && right instanceof CelTime)
      return new CelTime(left.type === right.type ? left.type : 'timestamp', left.ms + right.ms);
    return arithmetic(
      left,
      right,
      (a, b) => a + b,
      (a, b) => a + b,
    );
  },
  '-': (left, right) => {
    if (left instanceof CelTime && right instanceof CelTime)
      return new CelTime(left.type === right.type ? 'duration' : 'timestamp', left.ms - right.ms);
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

function equal(left: CelValue, right: CelValue): boolean {
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

interface Conversion {
  readonly from: readonly CelType[];
  readonly to: CelType;
  convert(value: CelValue): CelValue;
}

const WHOLE = /^[+-]?[0-9]{1,19}$/;
const DURATION = /^-?(?:[0-9]+(?:\.[0-9]+)?(?:h|ms|us|ns|m|s))+$/;
const UNIT_MS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1, us: 0.001, ns: 0.000001 };

const conversions: Readonly<Record<string, Conversion>> = {
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
      return new CelTime('duration', value.startsWith('-') ? -ms : ms);
    },
  },
  timestamp: {
    from: ['timestamp', 'string', 'int'],
    to: 'timestamp',
    convert: (value) => {
      if (value instanceof CelTime) return value;
      const ms = typeof value === 'bigint' ? Number(value) * 1000 : typeof value === 'string' ? Date.parse(value) : Number.NaN;
      return Number.isNaN(ms) ? new CelError(`${JSON.stringify(String(value))} is no time`) : new CelTime('timestamp', ms);
    },
  },
};

const textTests: Readonly<Record<string, (value: string, other: string) => boolean>> = {
  contains: (value, other) => value.includes(other),
  startsWith: (value, other) => value.startsWith(other),
  endsWith: (value, other) => value.endsWith(other),
  // Compiled ahead of time.
  matches: () => false,
};

const timeParts: Readonly<Record<string, (time: Date) => number>> = {
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
