/** Header lines as Go's echo servers write them. */

/** Sorted by name; values of one name stay in the order in which they came. */
export function byName(lines: readonly string[]): string[] {
  const name = (line: string): string => line.slice(0, line.indexOf(':'));
  return lines.toSorted((a, b) => (name(a) < name(b) ? -1 : name(a) > name(b) ? 1 : 0));
}
