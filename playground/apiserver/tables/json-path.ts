/** The part of kubectl's JSONPath that printer columns use: fields, `[*]`, indexes, and filters that compare one field with a constant. */
import { isObject } from '../json.ts';

type Step =
  | { readonly field: string }
  | { readonly index: number }
  | { readonly each: true }
  | { readonly filter: readonly string[]; readonly equals: string };

export type JsonPath = (value: unknown) => unknown[];

/** @throws {Error} naming the path that cannot be parsed */
export function compileJsonPath(text: string): JsonPath {
  const steps = parse(text.replace(/^\{(.*)\}$/, '$1'));
  return (value) => steps.reduce<unknown[]>((values, step) => values.flatMap((each) => advance(each, step)), [value]);
}

function parse(text: string): Step[] {
  const steps: Step[] = [];
  let rest = text.replace(/^\$/, '');
  while (rest !== '') {
    const match =
      /^\.?\[\?\(\s*@\.([\w.-]+)\s*==\s*(?:"([^"]*)"|'([^']*)'|([\w.-]+))\s*\)\]/.exec(rest) ??
      /^\.?\[(\*)\]/.exec(rest) ??
      /^\.?\[(-?\d+)\]/.exec(rest) ??
      /^\.?\[(?:"([^"]+)"|'([^']+)')\]/.exec(rest) ??
      /^\.((?:[^.[\\]|\\.)+)/.exec(rest);
    if (!match) throw new Error(`cannot parse JSONPath ${text} at ${rest}`);
    const [whole, ...parts] = match;
    const first = parts.find((part) => part !== undefined) ?? '';
    if (whole.includes('?(')) steps.push({ filter: first.split('.'), equals: parts.slice(1).find((part) => part !== undefined) ?? '' });
    else if (first === '*') steps.push({ each: true });
    else if (/^\.?\[-?\d+\]$/.test(whole)) steps.push({ index: Number(first) });
    else steps.push({ field: first.replaceAll('\\', '') });
    rest = rest.slice(whole.length);
  }
  return steps;
}

function advance(value: unknown, step: Step): unknown[] {
  if ('field' in step) {
    const inner = isObject(value) ? value[step.field] : undefined;
    return inner === undefined ? [] : [inner];
  }
  if (!Array.isArray(value)) return 'each' in step && isObject(value) ? Object.values(value) : [];
  if ('index' in step) return value.slice(step.index, step.index === -1 ? undefined : step.index + 1);
  if ('each' in step) return value;
  return value.filter((item) => {
    const found = step.filter.reduce<unknown>((current, name) => (isObject(current) ? current[name] : undefined), item);
    return String(found) === step.equals;
  });
}
