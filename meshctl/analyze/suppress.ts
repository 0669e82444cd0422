/** `--suppress CODE=KIND NAME.NAMESPACE`: what is known and not to be told again; `*` stands for anything. */
import { type Message, messageTypes } from '../../istiod-lite/analysis/messages.ts';
import { CommandError } from '../terminal.ts';

export interface Suppression {
  readonly code: string;
  readonly resource: RegExp;
}

/** @throws {CommandError} for one that cannot be read */
export function readSuppression(text: string): Suppression {
  const [code = '', resource = '', more] = text.split('=');
  if (code === '' || resource === '' || more !== undefined)
    throw new CommandError(`--suppress ${text}: expected CODE=KIND NAME.NAMESPACE (IST0127=AuthorizationPolicy web.shop)`);
  const pattern = resource
    .split('*')
    .map((piece) => piece.replace(/[.+?^${}()|[\]\\/]/g, '\\$&'))
    .join('.*');
  return { code, resource: new RegExp(`^${pattern}$`) };
}

export const isKnownCode = (code: string): boolean => Object.values(messageTypes).some((type) => type.code === code);

export function isSuppressed({ type, origin: { kind, namespace, name } }: Message, suppressions: readonly Suppression[]): boolean {
  const resource = `${kind} ${namespace === '' ? name : `${name}.${namespace}`}`;
  return suppressions.some((each) => each.code === type.code && each.resource.test(resource));
}
