/** What a pod, or its namespace, wants done with connections that were open before it joined the mesh. */
import { hours } from '../../common/base/clock.ts';
import { duration } from '../../common/base/settings.ts';

const OPEN_CONNECTIONS = 'warren.dev/open-connections';

/**
 * `default`: they stay, and are cut a minute after STRICT or a policy applies. `keep`: they stay whatever applies. A number: they are cut so
 * many milliseconds after the pod has joined; 0 is `cut`.
 */
export type OpenConnectionsWish = 'default' | 'keep' | number;

const MAX_DRAIN_MS = hours(24);

/**
 * The pod's annotation wins over its namespace's.
 * @returns the wish, and a sentence about each annotation that means nothing (it is then as if it were not there)
 */
export function openConnectionsWish(
  pod: Readonly<Record<string, string>> | undefined,
  namespace: Readonly<Record<string, string>> | undefined,
): { readonly wish: OpenConnectionsWish; readonly problems: readonly string[] } {
  const problems: string[] = [];
  for (const text of [pod?.[OPEN_CONNECTIONS], namespace?.[OPEN_CONNECTIONS]]) {
    if (text === undefined) continue;
    const wish = parseWish(text.trim());
    if (wish !== undefined) return { wish, problems };
    problems.push(`${OPEN_CONNECTIONS}: ${JSON.stringify(text.slice(0, 64))} is none of keep, cut, drain=30s (at most 24h)`);
  }
  return { wish: 'default', problems };
}

function parseWish(text: string): OpenConnectionsWish | undefined {
  if (text === 'keep') return 'keep';
  if (text === 'cut') return 0;
  const drain = /^drain=(.+)$/.exec(text)?.[1];
  try {
    const ms = drain === undefined ? undefined : duration.parse(drain);
    return ms !== undefined && ms <= MAX_DRAIN_MS ? ms : undefined;
  } catch {
    // No duration: the caller says so, with the text.
    return undefined;
  }
}
