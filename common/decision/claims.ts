/** What a token says, looked up by name. */

/** A claim by its names from the outermost in; text, numbers and truth values as text, lists as several values. */
export function claimValues(claims: Readonly<Record<string, unknown>>, names: readonly string[]): string[] {
  let here: unknown = claims;
  for (const name of names) {
    if (typeof here !== 'object' || here === null || !Object.hasOwn(here, name)) return [];
    here = (here as Record<string, unknown>)[name];
  }
  return [here].flat().flatMap((value) => (['string', 'number', 'boolean'].includes(typeof value) ? [String(value)] : []));
}
