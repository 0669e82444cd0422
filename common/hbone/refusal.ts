/** What a peer says when it does not open a tunnel, and what of it can be tried again. */
import { ProxyError } from '../base/errors.ts';
import { statusText } from '../base/status-text.ts';
import type { Headers } from './types.ts';

/** The response field in which our own proxies give `code; policy; id` with a refusal (decision 5). */
export const REFUSAL_HEADER = 'x-warren-refusal';

/** Why a peer that is one of ours refused; pieces that it did not give are undefined. */
export interface RefusalReason {
  readonly code: string | undefined;
  readonly policy: string | undefined;
  readonly id: string | undefined;
}

/** The peer answered the CONNECT, and not with 200. */
export class TunnelRefused extends ProxyError {
  readonly status: number;
  readonly headers: Headers;
  readonly reason: RefusalReason | undefined;

  constructor(status: number, headers: Headers) {
    const value = headers.find(([name]) => name === REFUSAL_HEADER)?.[1];
    const reason = value === undefined ? undefined : parseRefusal(value);
    super(
      'UPSTREAM_STATUS',
      `http status: ${statusLine(status)}${reason ? describe(reason) : ''}`,
      reason?.policy === undefined ? {} : { policy: reason.policy },
    );
    this.name = 'TunnelRefused';
    this.status = status;
    this.headers = headers;
    this.reason = reason;
  }
}

/** The request was certainly not processed, so it may be sent again on another connection (RFC 9113, section 8.7). */
export class TunnelNotOpened extends ProxyError {
  constructor(message: string) {
    super('CONNECTION_LOST', message);
    this.name = 'TunnelNotOpened';
  }
}

/** Reads `code; policy; id`; also takes `code=…; policy=…; id=…` in any order, missing pieces, and surplus ones. */
export function parseRefusal(value: string): RefusalReason {
  const found = new Map<string, string>();
  const order = ['code', 'policy', 'id'];
  value
    .slice(0, 512)
    .split(';')
    .map((piece) => piece.trim())
    .forEach((piece, i) => {
      const [, key, rest] = /^(code|policy|id)\s*=\s*(.*)$/.exec(piece) ?? [undefined, order[i], piece];
      // What a peer says ends up in a log line.
      if (key !== undefined && rest !== undefined && !found.has(key) && /^[\x21-\x7e]+$/.test(rest)) found.set(key, rest);
    });
  return { code: found.get('code'), policy: found.get('policy'), id: found.get('id') };
}

const statusLine = (status: number): string => `${status} ${statusText(status)}`.trim();

function describe({ code, policy, id }: RefusalReason): string {
  const pieces = [code, policy === undefined ? undefined : `policy ${policy}`, id === undefined ? undefined : `id ${id}`].filter(
    (piece) => piece !== undefined,
  );
  return pieces.length === 0 ? '' : ` (${pieces.join(', ')})`;
}
