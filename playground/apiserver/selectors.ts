/** Label and field selectors: parsed once from a query or from a `LabelSelector` object, then asked for each object. */
import { ApiError } from './api-error.ts';
import { arrayOf, at, isObject, objectOf, stringOf } from './json.ts';
import type { KubeObject } from './object.ts';

export type Labels = Readonly<Record<string, string>>;
export type LabelMatcher = (labels: Labels) => boolean;
export type ObjectMatcher = (object: KubeObject) => boolean;

export interface LabelSelector {
  readonly matchLabels?: Labels;
  readonly matchExpressions?: readonly { key: string; operator: string; values?: readonly string[] }[];
}

const everything: LabelMatcher = () => true;

/**
 * `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
 * @throws {ApiError} BadRequest naming the part that is none
 */
export function parseLabelSelector(text: string): LabelMatcher {
  const requirements = splitOutsideParentheses(text).map(parseRequirement);
  return requirements.length === 0 ? everything : (labels) => requirements.every((matches) => matches(labels));
}

/** A `LabelSelector` of a Deployment, webhook or policy. An empty one selects everything. */
export function labelSelectorMatcher(selector: unknown): LabelMatcher {
  const matchLabels = Object.entries(objectOf(at(selector, 'matchLabels')));
  const expressions = arrayOf(at(selector, 'matchExpressions')).map((expression) => {
    const { key, operator, values } = objectOf(expression);
    return requirement(stringOf(key), stringOf(operator), arrayOf(values).map(stringOf));
  });
  return (labels) => matchLabels.every(([key, value]) => labels[key] === value) && expressions.every((matches) => matches(labels));
}

/** A selector object as text for `?labelSelector=` and for a scale's `status.selector`. */
export function formatLabelSelector(selector: unknown): string {
  const pairs = Object.entries(objectOf(at(selector, 'matchLabels'))).map(([key, value]) => `${key}=${stringOf(value)}`);
  const expressions = arrayOf(at(selector, 'matchExpressions')).map((expression) => {
    const { key, operator, values } = objectOf(expression);
    const list = `(${arrayOf(values).join(',')})`;
    if (operator === 'In') return `${stringOf(key)} in ${list}`;
    if (operator === 'NotIn') return `${stringOf(key)} notin ${list}`;
    return operator === 'DoesNotExist' ? `!${stringOf(key)}` : stringOf(key);
  });
  return [...pairs, ...expressions].join(',');
}

/**
 * `metadata.name=x,status.phase!=Running`. Any path to a scalar may be asked; what is absent counts as empty.
 * @throws {ApiError} BadRequest
 */
export function parseFieldSelector(text: string): ObjectMatcher {
  const terms = text
    .split(',')
    .filter((term) => term.trim() !== '')
    .map((term) => {
      const match = /^\s*([\w.[\]-]+)\s*(==|=|!=)\s*(.*?)\s*$/.exec(term);
      if (!match) throw ApiError.badRequest(`invalid field selector "${text}": cannot parse "${term}"`);
      const [, path = '', operator, value = ''] = match;
      return { path: path.split('.'), wanted: operator !== '!=', value };
    });
  return (object) => terms.every(({ path, wanted, value }) => (scalar(at(object, ...path)) === value) === wanted);
}

const scalar = (value: unknown): string => (value === undefined || value === null || isObject(value) ? '' : String(value));

function splitOutsideParentheses(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let current = '';
  for (const char of text) {
    if (char === '(') depth++;
    if (char === ')') depth--;
    if (char === ',' && depth === 0) {
      parts.push(current);
      current = '';
    } else current += char;
  }
  parts.push(current);
  return parts.map((part) => part.trim()).filter((part) => part !== '');
}

const KEY = '[\\w./-]+';
const FORMS: readonly [RegExp, string][] = [
  [new RegExp(`^(${KEY})\\s+in\\s+\\(([^()]*)\\)$`), 'In'],
  [new RegExp(`^(${KEY})\\s+notin\\s+\\(([^()]*)\\)$`), 'NotIn'],
  [new RegExp(`^(${KEY})\\s*!=\\s*([\\w.-]*)$`), 'NotIn'],
  [new RegExp(`^(${KEY})\\s*==?\\s*([\\w.-]*)$`), 'In'],
  [new RegExp(`^!\\s*(${KEY})$`), 'DoesNotExist'],
  [new RegExp(`^(${KEY})$`), 'Exists'],
];

function parseRequirement(text: string): LabelMatcher {
  for (const [form, operator] of FORMS) {
    const match = form.exec(text);
    if (match)
      return requirement(
        match[1] ?? '',
        operator,
        (match[2] ?? '').split(',').map((value) => value.trim()),
      );
  }
  throw ApiError.badRequest(`unable to parse requirement: ${text} is no label selector requirement`);
}

function requirement(key: string, operator: string, values: readonly string[]): LabelMatcher {
  switch (operator) {
    case 'In':
      return (labels) => values.includes(labels[key] ?? '') && key in labels;
    case 'NotIn':
      return (labels) => !(key in labels) || !values.includes(labels[key] ?? '');
    case 'Exists':
      return (labels) => key in labels;
    case 'DoesNotExist':
      return (labels) => !(key in labels);
    default:
      throw ApiError.badRequest(`"${operator}" is not a valid label selector operator`);
  }
}
