/** Messages as istioctl prints them: a line each, or JSON and YAML with the same fields. */
import yaml from 'js-yaml';
import picocolors from 'picocolors';
import { docsLink, friendlyName, type Level, type Message } from '../../istiod-lite/analysis/messages.ts';

export const FORMATS = ['log', 'json', 'yaml'] as const;
export type Format = (typeof FORMATS)[number];

export function printMessages(messages: readonly Message[], format: Format, colour: boolean): string {
  if (format === 'json') return JSON.stringify(messages.map(plain), undefined, '\t');
  if (format === 'yaml') return yaml.dump(messages.map(plain), { lineWidth: -1 }).trimEnd();
  const paint = picocolors.createColors(colour);
  const shade: Readonly<Record<Level, (text: string) => string>> = {
    Error: (text) => paint.bold(paint.red(text)),
    Warning: paint.yellow,
    Info: (text) => text,
  };
  return messages
    .map(({ type, origin, text }) => `${shade[type.level](type.level)} [${type.code}] (${placeOf(origin)}) ${oneLine(text)}`)
    .join('\n');
}

const placeOf = (origin: Message['origin']): string =>
  origin.reference === undefined ? friendlyName(origin) : `${friendlyName(origin)} ${origin.reference}`;

const plain = ({ type, origin, text }: Message): object => ({
  code: type.code,
  documentationUrl: docsLink(type),
  level: type.level,
  message: text,
  origin: friendlyName(origin),
  ...(origin.reference === undefined ? {} : { reference: origin.reference }),
});

const oneLine = (text: string): string => text.replaceAll(/\s+/g, ' ').trim();
