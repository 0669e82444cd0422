/** What the pieces of a message may be made of, for both versions (RFC 9110 §5, RFC 9112 §3.2). Text is latin1: one char for each byte. */

const TCHAR = 1;
const UPPER = 2;

/** For each char: 0 where no token has it, else 1, with 2 added for an upper-case letter. */
export const tokenClass = new Uint8Array(256);
for (const char of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") tokenClass[char.charCodeAt(0)] = TCHAR;
for (let code = 65; code <= 90; code++) tokenClass[code] = TCHAR | UPPER;
export const UPPER_CASE = UPPER;

/** For each char: 1 where a field's value may have it (tab, visible ASCII, space, and bytes from 0x80). */
export const valueClass = new Uint8Array(256);
for (let code = 0; code < 256; code++) valueClass[code] = code === 9 || (code >= 32 && code !== 127) ? 1 : 0;

/** For each char: 1 where a request target may have it: visible ASCII without `#`, which no target has (RFC 9112 §3.2). */
const targetClass = new Uint8Array(256);
for (let code = 0x21; code < 0x7f; code++) targetClass[code] = code === 0x23 ? 0 : 1;

const consistsOf = (text: string, allowed: Uint8Array): boolean => {
  for (let i = 0; i < text.length; i++) if ((allowed[text.charCodeAt(i)] ?? 0) === 0) return false;
  return true;
};

/** A method, or a field's name in any case. */
export const isToken = (text: string): boolean => text !== '' && consistsOf(text, tokenClass);

/** A field's name as HTTP/2 wants it: no upper case (RFC 9113 §8.2.1). */
export function isLowerToken(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (tokenClass[text.charCodeAt(i)] !== TCHAR) return false;
  return text !== '';
}

/** A field's value without spaces around it. */
export function isFieldValue(text: string): boolean {
  return consistsOf(text, valueClass) && !isSpace(text.charCodeAt(0)) && !isSpace(text.charCodeAt(text.length - 1));
}

/** Path and query. */
export const isPath = (text: string): boolean => text.charCodeAt(0) === 0x2f && consistsOf(text, targetClass);

export const isTarget = (text: string): boolean => text !== '' && consistsOf(text, targetClass);

export const isSpace = (code: number): boolean => code === 32 || code === 9;

// Names as people use them: with underscores, which RFC 3986 allows too; percent-encoding and what URIs call sub-delims are not for hosts.
const AUTHORITY = /^(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?$/;

let lastAuthority = '';

/** Host and optional port; no user, no path, no list (RFC 9110 §7.2). */
export function isAuthority(text: string): boolean {
  // Requests of a connection are for the same authority, mostly.
  if (text === lastAuthority) return text !== '';
  const match = AUTHORITY.exec(text);
  if (!match || Number(match[1] ?? 0) > 65535) return false;
  lastAuthority = text;
  return true;
}

/** Bytes of a Content-Length; undefined where it is not digits alone, or beyond what a number can say. */
export function parseContentLength(text: string): number | undefined {
  if (text.length === 0 || text.length > 15) return undefined;
  let value = 0;
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (digit < 0 || digit > 9) return undefined;
    value = value * 10 + digit;
  }
  return value;
}
