/**
 * What happened to a connection or request, from the decision journals of the proxies that carried it: the parts that have its id, and those of
 * the connection to a waypoint that it came by, in the order in which they began.
 */
import type { JournalAnswer, JournalEvent } from '../../common/decision/journal.ts';

export interface ProxyEvents extends Pick<JournalAnswer, 'events'> {
  /** `POD.NAMESPACE`. */
  readonly proxy: string;
  readonly kind: string;
  readonly node: string;
  readonly error?: string;
}

export interface Recalled {
  readonly id: string;
  readonly parts: readonly RecalledPart[];
  /** Proxies that could not be asked. */
  readonly silent: readonly string[];
}

export interface RecalledPart extends JournalEvent {
  readonly proxy: string;
  readonly kind: string;
  readonly node: string;
}

/** As the access log prints them. */
export const isConnectionId = (text: string): boolean => /^[0-9a-f]{32}$/.test(text);

/** @param ask for one id, of all proxies */
export async function recall(id: string, ask: (id: string) => Promise<readonly ProxyEvents[]>): Promise<Recalled> {
  const first = await ask(id);
  // A request came by a connection, which the caller's ztunnel knows under that one's id.
  const tunnels = new Set(first.flatMap(({ events }) => events.map(({ tunnel }) => tunnel)));
  tunnels.delete('');
  tunnels.delete(id);
  const more = await Promise.all([...tunnels].map(ask));
  const known = new Set<string>();
  const parts = [...first, ...more.flat()]
    .flatMap(({ proxy, kind, node, events }) =>
      events
        .filter((event) => event.id === id || event.tunnel === id || tunnels.has(event.id))
        .map((event): RecalledPart => ({ ...event, proxy, kind, node })),
    )
    .filter(({ proxy, ...event }) => {
      const key = `${proxy} ${event.decision.at} ${event.id} ${event.endMs}`;
      return !known.has(key) && known.add(key);
    })
    .sort((a, b) => startOf(a) - startOf(b) || ORDER.indexOf(a.decision.at) - ORDER.indexOf(b.decision.at));
  const silent = [...new Set(first.flatMap(({ proxy, error }) => (error === undefined ? [] : [`${proxy}: ${error}`])))];
  return { id, parts, silent };
}

const ORDER = ['outbound', 'connection', 'request', 'inbound'];
const startOf = ({ endMs, durationMs }: JournalEvent): number => endMs - durationMs;

type Paint = Readonly<Record<'green' | 'red' | 'yellow' | 'bold', (text: string) => string>>;

export function renderRecalled({ id, parts, silent }: Recalled, paint: Paint): string {
  const lines = [paint.bold(`connection ${id}`)];
  for (const part of parts) lines.push('', ...partLines(part, paint));
  if (silent.length > 0) lines.push('', ...silent.map((text) => paint.yellow(`not asked: ${text}`)));
  return lines.join('\n');
}

const PLACE: Readonly<Record<JournalEvent['decision']['at'], string>> = {
  outbound: 'left its pod',
  connection: 'at the waypoint, as bytes',
  request: 'at the waypoint, as a request',
  inbound: 'reached its pod',
};

function partLines(part: RecalledPart, paint: Paint): string[] {
  const { decision, proxy, kind, node } = part;
  const { source, sourceIp, identity, service, pod, ip, port, request, policy, route, code, verdict } = decision;
  const started = new Date(startOf(part)).toISOString();
  const lines = [`${started}  ${PLACE[decision.at]} (${kind} ${proxy}${node === '' ? '' : ` on ${node}`})`];
  if (part.tunnel !== '') lines.push(`  id ${part.id}, by the connection ${part.tunnel}`);
  lines.push(
    `  from ${source || sourceIp}${source === '' ? '' : ` (${sourceIp})`}${identity === '' ? ', without an identity' : `, which proved ${identity}`}`,
  );
  lines.push(`  to ${service || pod || ip || 'an unknown destination'}${ip === '' ? '' : ` (${ip})`} port ${port}`);
  if (request) lines.push(`  ${request.method} ${request.host}${request.path ?? ' (path not kept)'}`);
  if (route !== '') lines.push(`  took the rule ${route}`);
  if (policy !== '') lines.push(`  ${verdict === 'refused' ? 'refused' : 'allowed'} by policy ${policy}`);
  if (part.endpoint !== '') lines.push(`  went to ${part.endpoint}${part.attempts > 1 ? `, at attempt ${part.attempts}` : ''}`);
  const took = `after ${duration(part.durationMs)}`;
  const status = part.status === 0 ? '' : `, status ${part.status}`;
  if (verdict === 'allowed' && code === '')
    lines.push(paint.green(`  completed ${took}${status}, ${part.sent} bytes there and ${part.received} back`));
  else
    lines.push(
      paint.red(
        `  ${verdict === 'refused' ? 'refused' : 'ended'} ${code} ${took}${status}${part.message === '' ? '' : `: ${part.message}`}`,
      ),
    );
  return lines;
}

const duration = (ms: number): string => (ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
