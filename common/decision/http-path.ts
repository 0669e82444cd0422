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
const HEX = /^[0-9a-fA-F]{2}$/;
const UNRESERVED = /^[A-Za-z0-9._~-]$/;

/** In one pass, also where a stray percent sign makes a new escape of what an escape leaves: `%%36%31` is `%61` is `a`. */
function unescaped(path: string): string {
  const out: string[] = [];
  for (const character of path) {
    out.push(character);
    for (;;) {
      const [percent, high, low] = out.slice(-3);
      if (percent !== '%' || high === undefined || low === undefined || !HEX.test(high + low)) break;
      const decoded = String.fromCharCode(Number.parseInt(high + low, 16));
      if (!UNRESERVED.test(decoded)) break;
      out.splice(-3, 3, decoded);
    }
  }
  return out.join('');
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
