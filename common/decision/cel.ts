/**
 * Expressions of the Common Expression Language over attributes of a request (CEL specification; Envoy, "Attributes"), compiled once into a
 * function of the request. Types are checked when it is compiled as far as they are known, so that a status code that is compared with a text
 * is refused instead of never being equal. An expression reads no clock, changes nothing and cannot run for long: it has no loops.
 */
import { type CelNode, CelSyntaxError, parseCel } from './cel-syntax.ts';
import {
  CelError,
  CelTime,
  type CelType,
  type CelValue,
  conversions,
  equal,
  firstError,
  inRange,
  isList,
  notOf,
  operators,
  resultType,
  textTests,
  timeParts,
  typeOf,
} from './cel-values.ts';

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

type Run<Subject> = (subject: Subject) => CelValue;

interface Node<Subject> {
  readonly type: CelType;
  readonly run: Run<Subject>;
  /** Where it is the same for every subject. */
  readonly constant?: CelValue;
}

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
      if (value instanceof CelTime && value.type === 'duration') return new CelTime('duration', -value.ms);
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

function needs(node: Node<never>, types: readonly CelType[], at: number, who: string): void {
  if (node.type !== 'any' && !types.includes(node.type))
    throw new CelSyntaxError(at, `${who} takes ${types.join(' or ')}, and this is ${node.type}`);
}

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
