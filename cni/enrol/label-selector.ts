/** A label selector that somebody wrote into a setting, decoded with errors that name the place. */
import type { LabelExpression, LabelSelector } from '../../common/decision/label-selector.ts';

/** @throws {Error} saying what about the selector is wrong */
export function parseLabelSelector(value: unknown, where: string): LabelSelector {
  const { matchLabels, matchExpressions, ...rest } = asRecord(value ?? {}, where);
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) throw new Error(`${where}: unknown field ${unknown}`);
  return {
    ...(matchLabels !== undefined && { matchLabels: parseLabels(matchLabels, `${where}.matchLabels`) }),
    ...(matchExpressions !== undefined && { matchExpressions: parseExpressions(matchExpressions, `${where}.matchExpressions`) }),
  };
}

function parseLabels(value: unknown, where: string): Record<string, string> {
  return Object.fromEntries(Object.entries(asRecord(value, where)).map(([key, text]) => [key, asText(text, `${where}.${key}`)]));
}

function parseExpressions(value: unknown, where: string): LabelExpression[] {
  if (!Array.isArray(value)) throw new Error(`${where}: expected a list`);
  return value.map((item: unknown, i) => {
    const at = `${where}[${i}]`;
    const { key, operator, values = [] } = asRecord(item, at);
    if (operator !== 'In' && operator !== 'NotIn' && operator !== 'Exists' && operator !== 'DoesNotExist') {
      throw new Error(`${at}.operator: expected In, NotIn, Exists or DoesNotExist`);
    }
    if (!Array.isArray(values)) throw new Error(`${at}.values: expected a list`);
    return { key: asText(key, `${at}.key`), operator, values: values.map((text: unknown) => asText(text, `${at}.values`)) };
  });
}

export function asRecord(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error(`${where}: expected a mapping`);
  return value as Record<string, unknown>;
}

function asText(value: unknown, where: string): string {
  if (typeof value !== 'string') throw new Error(`${where}: expected text`);
  return value;
}
