/**
 * The grammar of the Common Expression Language, as far as expressions about requests need it (CEL specification, "Syntax"): literals, lists,
 * operators, members, indexes and calls. No macros over lists, no maps, no messages. What is not understood is refused with its position.
 */

/** Where and what is wrong; `position` counts characters from 1. */
export class CelSyntaxError extends Error {
  readonly position: number;

  constructor(position: number, message: string) {
    super(`at character ${position}: ${message}`);
    this.position = position;
  }
}

export type BinaryOperator = '||' | '&&' | '==' | '!=' | '<' | '<=' | '>' | '>=' | 'in' | '+' | '-' | '*' | '/' | '%';

/** `at` is the position of its first character, of an operator that of the operator. */
export type CelNode = { readonly at: number } & (
  | { readonly kind: 'literal'; readonly value: null | boolean | bigint | number | string }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'member'; readonly of: CelNode; readonly name: string }
  | { readonly kind: 'index'; readonly of: CelNode; readonly index: CelNode }
  | { readonly kind: 'call'; readonly name: string; readonly of: CelNode | undefined; readonly args: readonly CelNode[] }
  | { readonly kind: 'list'; readonly items: readonly CelNode[] }
  | { readonly kind: 'unary'; readonly operator: '!' | '-'; readonly of: CelNode }
  | { readonly kind: 'binary'; readonly operator: BinaryOperator; readonly left: CelNode; readonly right: CelNode }
  | { readonly kind: 'choice'; readonly condition: CelNode; readonly yes: CelNode; readonly no: CelNode }
);

/** Characters of an expression, and how deep its parts may lie in each other: what is longer is no filter but a program. */
const MOST_CHARACTERS = 4096;
const DEEPEST = 64;
const MOST_INT = 2n ** 64n - 1n;

/** @throws {CelSyntaxError} */
export function parseCel(source: string): CelNode {
  if (source.length > MOST_CHARACTERS) throw new CelSyntaxError(1, `the expression is longer than ${MOST_CHARACTERS} characters`);
  return new Parser(tokens(source)).whole();
}

interface Token {
  readonly at: number;
  readonly type: 'name' | 'literal' | 'sign' | 'end';
  readonly text: string;
  readonly value?: bigint | number | string;
}

const SPACE = /[ \t\n\f\r]+|\/\/[^\n]*/y;
const NAME = /[A-Za-z_][A-Za-z0-9_]*/y;
const NUMBER = /0x[0-9a-fA-F]+[uU]?|(?:[0-9]+\.[0-9]+|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][+-]?[0-9]+)?|[0-9]+[uU]?/y;
const SIGN = /\|\||&&|==|!=|<=|>=|[<>+\-*/%!?:.,()[\]{}]/y;
const TEXT = /([rR]?)('''|"""|'|")/y;
const BYTES = /[bB][rR]?['"]|[rR][bB]['"]/y;

function tokens(source: string): Token[] {
  const found: Token[] = [];
  let at = 0;
  const take = (pattern: RegExp): RegExpExecArray | undefined => {
    pattern.lastIndex = at;
    const match = pattern.exec(source) ?? undefined;
    return match;
  };
  while (at < source.length) {
    const start = at + 1;
    const space = take(SPACE);
    if (space) {
      at += space[0].length;
      continue;
    }
    if (take(BYTES)) throw new CelSyntaxError(start, 'bytes are not supported');
    const quote = take(TEXT);
    if (quote) {
      const [opening, raw = '', mark = ''] = quote;
      const { value, end } = text(source, at + opening.length, mark, raw !== '');
      found.push({ at: start, type: 'literal', text: source.slice(at, end), value });
      at = end;
      continue;
    }
    const number = take(NUMBER)?.[0];
    const name = number === undefined ? take(NAME)?.[0] : undefined;
    const sign = number === undefined && name === undefined ? take(SIGN)?.[0] : undefined;
    const token = number ?? name ?? sign;
    if (token === undefined) throw new CelSyntaxError(start, `${JSON.stringify(source[at])} is not understood`);
    if (number !== undefined) found.push({ at: start, type: 'literal', text: token, value: numberOf(number, start) });
    else found.push({ at: start, type: name === undefined ? 'sign' : 'name', text: token });
    at += token.length;
  }
  found.push({ at: source.length + 1, type: 'end', text: '' });
  return found;
}

function numberOf(written: string, at: number): bigint | number {
  if (/^(?:0x[0-9a-fA-F]+|[0-9]+)[uU]?$/.test(written)) {
    const value = BigInt(written.replace(/[uU]$/, ''));
    if (value > MOST_INT) throw new CelSyntaxError(at, `${written} is too large`);
    return value;
  }
  return Number(written);
}

const ESCAPES: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
  '\\': '\\',
  "'": "'",
  '"': '"',
  '`': '`',
  '?': '?',
};
const CODE = /x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})/y;

function text(source: string, from: number, mark: string, raw: boolean): { value: string; end: number } {
  let value = '';
  let at = from;
  for (;;) {
    if (at >= source.length || (mark.length === 1 && source[at] === '\n')) throw new CelSyntaxError(from, 'the text has no end');
    if (source.startsWith(mark, at)) return { value, end: at + mark.length };
    const letter = source[at++] ?? '';
    if (letter !== '\\' || raw) {
      value += letter;
      continue;
    }
    const plain = ESCAPES[source[at] ?? ''];
    if (plain !== undefined) {
      value += plain;
      at++;
      continue;
    }
    CODE.lastIndex = at;
    const code = CODE.exec(source);
    const point = code ? Number.parseInt(code[1] ?? code[2] ?? code[3] ?? code[4] ?? '', code[4] === undefined ? 16 : 8) : -1;
    if (!code || point < 0 || point > 0x10ffff) throw new CelSyntaxError(at, 'this escape is not understood');
    value += String.fromCodePoint(point);
    at += code[0].length;
  }
}

const RESERVED = new Set('as break const continue else for function if import let loop package namespace return var void while'.split(' '));
const LEVELS: readonly (readonly string[])[] = [['||'], ['&&'], ['==', '!=', '<', '<=', '>', '>=', 'in'], ['+', '-'], ['*', '/', '%']];

class Parser {
  readonly #tokens: readonly Token[];
  #next = 0;
  #depth = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  whole(): CelNode {
    const node = this.#expression();
    if (this.#token.type !== 'end') throw this.#unexpected();
    return node;
  }

  get #token(): Token {
    return this.#tokens[this.#next] ?? { at: 0, type: 'end', text: '' };
  }

  #unexpected(): CelSyntaxError {
    const { at, type, text } = this.#token;
    return new CelSyntaxError(at, type === 'end' ? 'the expression has no end' : `${JSON.stringify(text)} is not expected here`);
  }

  #is(sign: string): boolean {
    const { type, text } = this.#token;
    return text === sign && (type === 'sign' || (sign === 'in' && type === 'name'));
  }

  #accept(sign: string): boolean {
    const found = this.#is(sign);
    if (found) this.#next++;
    return found;
  }

  #expect(sign: string): void {
    if (!this.#accept(sign)) throw this.#unexpected();
  }

  #expression(): CelNode {
    if (++this.#depth > DEEPEST) throw new CelSyntaxError(this.#token.at, `parts lie more than ${DEEPEST} deep in each other`);
    const condition = this.#binary(0);
    const { at } = this.#token;
    let node = condition;
    if (this.#accept('?')) {
      const yes = this.#binary(0);
      this.#expect(':');
      node = { kind: 'choice', at, condition, yes, no: this.#expression() };
    }
    this.#depth--;
    return node;
  }

  #binary(level: number): CelNode {
    const operators = LEVELS[level];
    if (!operators) return this.#unary();
    let left = this.#binary(level + 1);
    for (let length = 0; ; length++) {
      const { at } = this.#token;
      const operator = operators.find((each) => this.#is(each));
      if (operator === undefined) return left;
      // A long chain is a deep tree.
      if (length > DEEPEST) throw new CelSyntaxError(at, `more than ${DEEPEST} operators in a row`);
      this.#next++;
      left = { kind: 'binary', at, operator: operator as BinaryOperator, left, right: this.#binary(level + 1) };
    }
  }

  #unary(): CelNode {
    const { at } = this.#token;
    for (const operator of ['!', '-'] as const) {
      if (!this.#accept(operator)) continue;
      if (++this.#depth > DEEPEST) throw new CelSyntaxError(at, `parts lie more than ${DEEPEST} deep in each other`);
      const of = this.#unary();
      this.#depth--;
      return { kind: 'unary', at, operator, of };
    }
    return this.#members();
  }

  #members(): CelNode {
    let node = this.#primary();
    for (let length = 0; ; length++) {
      const { at } = this.#token;
      if (length > DEEPEST) throw new CelSyntaxError(at, `more than ${DEEPEST} members in a row`);
      if (this.#accept('.')) {
        const { type, text: name, at: nameAt } = this.#token;
        if (type !== 'name') throw this.#unexpected();
        this.#next++;
        node = this.#is('(')
          ? { kind: 'call', at: nameAt, name, of: node, args: this.#list('(', ')') }
          : { kind: 'member', at: nameAt, of: node, name };
      } else if (this.#accept('[')) {
        const index = this.#expression();
        this.#expect(']');
        node = { kind: 'index', at, of: node, index };
      } else return node;
    }
  }

  #primary(): CelNode {
    const token = this.#token;
    const { at, type, text: word } = token;
    if (type === 'literal') {
      this.#next++;
      return { kind: 'literal', at, value: token.value ?? null };
    }
    if (type === 'name') {
      if (word === 'in' || RESERVED.has(word)) throw this.#unexpected();
      this.#next++;
      if (word === 'true' || word === 'false') return { kind: 'literal', at, value: word === 'true' };
      if (word === 'null') return { kind: 'literal', at, value: null };
      return this.#is('(') ? { kind: 'call', at, name: word, of: undefined, args: this.#list('(', ')') } : { kind: 'name', at, name: word };
    }
    if (this.#accept('(')) {
      const node = this.#expression();
      this.#expect(')');
      return node;
    }
    if (this.#is('[')) return { kind: 'list', at, items: this.#list('[', ']') };
    throw this.#unexpected();
  }

  #list(open: string, close: string): CelNode[] {
    const items: CelNode[] = [];
    this.#expect(open);
    while (!this.#accept(close)) {
      if (items.length > 0) this.#expect(',');
      // Lists may end in a comma.
      if (items.length > 0 && open === '[' && this.#accept(close)) break;
      items.push(this.#expression());
    }
    return items;
  }
}
