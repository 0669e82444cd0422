/**
 * One spelling for each path, before anybody decides by it: otherwise `/x/../admin`, `/%61dmin` and `/x\..\admin` would be ways around a policy
 * for `/admin`. What backends get is the same spelling. This is Istio's default (path normalization BASE): RFC 3986, section 6.2.2, and
 * backslashes as slashes; slashes are neither merged nor decoded.
 */

/** @param path path and query, starting with `/`; anything else (`*`) is returned as it is */
export function normalizePath(path: string): string {
  if (!UNUSUAL.test(path) || path[0] !== '/') return path;
  const query = path.indexOf('?');
  const [bare, rest] = query < 0 ? [path, ''] : [path.slice(0, query), path.slice(query)];
  const decoded = unescaped(bare.replaceAll('\\', '/'));
  return `${withoutDots(decoded)}${rest}`;
}

/** Most paths have none of these. */
const UNUSUAL = /[%\\]|\/\./;
const ESCAPE = /%([0-9a-fA-F]{2})/g;
const UNRESERVED = /^[A-Za-z0-9._~-]$/;

/** Until nothing changes: a stray percent sign before an escape would make a new escape of what the first one leaves. */
function unescaped(path: string): string {
  const next = path.replace(ESCAPE, (triplet, hex: string) => {
    const character = String.fromCharCode(Number.parseInt(hex, 16));
    return UNRESERVED.test(character) ? character : triplet;
  });
  return next === path ? path : unescaped(next);
}

/** RFC 3986, section 5.2.4. */
function withoutDots(path: string): string {
  const kept: string[] = [];
  const segments = path.split('/').slice(1);
  segments.forEach((segment, i) => {
    const last = i === segments.length - 1;
    if (segment === '..') kept.pop();
    else if (segment !== '.') {
      kept.push(segment);
      return;
    }
    if (last) kept.push('');
  });
  return `/${kept.join('/')}`;
}
