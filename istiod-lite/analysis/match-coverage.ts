/** Whether one match of a route takes every request that another one takes. Where that cannot be told, it does not. */
import { isDeepStrictEqual } from 'node:util';
import type { HttpMatch, PathMatch, ValueMatch } from '../../common/codec/gen/waypoint.ts';

export function covers(a: HttpMatch, b: HttpMatch): boolean {
  return (
    coversPath(a.path, b.path) &&
    (a.method === '' || a.method === b.method) &&
    isWithin(a.headers, b.headers) &&
    isWithin(a.queryParams, b.queryParams) &&
    isWithin(a.withoutHeaders, b.withoutHeaders) &&
    sameOrAny(a.authority, b.authority) &&
    sameOrAny(a.scheme, b.scheme) &&
    sameOrAny(a.methodPattern, b.methodPattern) &&
    sameOrAny(a.source, b.source)
  );
}

function coversPath(a: PathMatch | undefined, b: PathMatch | undefined): boolean {
  const [wide, narrow] = [a?.type, b?.type];
  if (!wide || (wide.$case !== 'regex' && wide.$case !== 'exact' && wide.value === '/')) return true;
  if (!narrow) return false;
  const folded = a?.ignoreCase === true;
  // A match that looks at letters' case takes less than one that does not.
  if (b?.ignoreCase === true && !folded) return false;
  const [outer, inner] = folded ? [wide.value.toLowerCase(), narrow.value.toLowerCase()] : [wide.value, narrow.value];
  switch (wide.$case) {
    case 'regex':
      return narrow.$case === 'regex' && outer === inner;
    case 'exact':
      return narrow.$case === 'exact' && outer === inner;
    case 'textPrefix':
      return narrow.$case !== 'regex' && inner.startsWith(outer);
    case 'prefix':
      return (narrow.$case === 'prefix' || narrow.$case === 'exact') && isBelow(inner, outer.replace(/\/+$/, ''));
  }
}

const isBelow = (path: string, folder: string): boolean => path === folder || path.startsWith(`${folder}/`);

/** More conditions take less. */
const isWithin = (few: readonly ValueMatch[], many: readonly ValueMatch[]): boolean =>
  few.every((one) => many.some((other) => isDeepStrictEqual(one, other)));

const sameOrAny = (a: unknown, b: unknown): boolean => a === undefined || isDeepStrictEqual(a, b);
