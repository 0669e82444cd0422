/** `meshctl tap`: asks the proxies that can see what is asked for, and prints what they tell, as it comes. */
import { errorMessage } from '../../common/base/errors.ts';
import type { KubeApi, KubeObject } from '../../common/client/kube-api.ts';
import type { TrafficEvent } from '../../common/decision/traffic-event.ts';
import { CommandError } from '../command-error.ts';
import { type Istiod, idOf, type ReportingProxy } from '../istiod.ts';
import { eventLine, TAP_HEAD, tapLine } from '../live/event-line.ts';
import { withIstiod } from '../session.ts';
import { type Connection, checkFormat, secondsOf, widthFor } from '../terminal.ts';

export interface TapOptions extends Connection {
  readonly subject: string | undefined;
  readonly namespace: string;
  readonly from?: string;
  readonly to?: string;
  readonly port?: string;
  readonly method?: string;
  readonly path?: string;
  readonly status?: string;
  readonly outcome?: string;
  readonly maxRate: string;
  readonly max?: string;
  readonly duration: string;
  readonly output: string;
}

interface TapLine {
  readonly event?: TrafficEvent;
  /** Of the proxy, since the tap began. */
  readonly summary?: { readonly shown: number; readonly dropped: number };
  /** Events that istiod could not hand on. */
  readonly lost?: number;
}

/** An istiod hands out 32 at once, and somebody else may tap, too. */
const MAX_PROXIES = 16;

export async function tapCommand(options: TapOptions): Promise<number> {
  checkFormat(options.output, ['text', 'wide', 'json']);
  const query = queryOf(options);
  const max = options.max === undefined ? Infinity : count(options.max, '--max');
  return withIstiod(options, async (api, istiod) => {
    const names = [query.subject, query.from, query.to].filter((name) => name !== '');
    const proxies = await proxiesFor(api, istiod, names);
    const ending = new AbortController();
    const width = widthFor(options.output);
    const left = new Map<string, number>();
    let seen = 0;
    const show = ({ event }: TapLine): void => {
      if (!event || ending.signal.aborted) return;
      console.log(options.output === 'json' ? JSON.stringify(event) : eventLine(event, width));
      if (++seen >= max) ending.abort();
    };
    const complain = (proxy: ReportingProxy, { summary, lost = 0 }: TapLine): void => {
      const id = idOf(proxy);
      const now = (summary?.dropped ?? left.get(id) ?? 0) + lost;
      if (now > (left.get(id) ?? 0)) console.error(`${id} has left out ${now} events (--max-rate ${options.maxRate})`);
      left.set(id, now);
    };
    console.error(`tapping ${proxies.map(idOf).join(', ')} (Ctrl-C ends it)`);
    if (options.output !== 'json') console.log(tapLine(TAP_HEAD, width));
    const failures: string[] = [];
    const follow = async (proxy: ReportingProxy): Promise<void> => {
      try {
        for await (const text of istiod.linesAt(proxy, '/debug/proxy/tap', query, ending.signal)) {
          const line = JSON.parse(text) as TapLine;
          show(line);
          complain(proxy, line);
        }
      } catch (error) {
        if (ending.signal.aborted) return;
        failures.push(idOf(proxy));
        console.error(`${idOf(proxy)}: ${errorMessage(error)}`);
      }
    };
    await Promise.all(proxies.map(follow));
    return failures.length === proxies.length ? 1 : 0;
  });
}

interface Query {
  readonly [name: string]: string;
  readonly subject: string;
  readonly from: string;
  readonly to: string;
}

function queryOf({ subject, namespace, from, to, port, method, path, status, outcome, maxRate, duration }: TapOptions): Query {
  const named = (name: string | undefined): string => (name === undefined ? '' : name.includes('/') ? name : `${namespace}/${name}`);
  if (path !== undefined && !path.startsWith('/')) throw new CommandError(`--path ${path}: expected a path that begins with /`);
  if (status !== undefined && !/^[1-5](?:\d\d|xx)$/.test(status)) throw new CommandError(`--status ${status}: expected 404 or 5xx`);
  if (outcome !== undefined && !/^(?:ok|refused|failed|[A-Z0-9_]+)$/.test(outcome))
    throw new CommandError(`--outcome ${outcome}: expected ok, refused, failed or a code of docs/errors.md`);
  return {
    subject: named(subject),
    from: named(from),
    to: named(to),
    port: port === undefined ? '' : String(count(port, '--port')),
    method: method?.toUpperCase() ?? '',
    path: path ?? '',
    status: status ?? '',
    outcome: outcome ?? '',
    maxRate: String(count(maxRate, '--max-rate')),
    seconds: String(Math.ceil(secondsOf(duration, '--duration', { least: 1, most: 3600 }))),
  };
}

function count(text: string, flag: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 1_000_000) throw new CommandError(`${flag} ${text}: expected a number from 1`);
  return value;
}

/** The ztunnels of the nodes where the named are, and the waypoints of their namespaces; all proxies where nobody is named. */
async function proxiesFor(api: KubeApi, istiod: Istiod, names: readonly string[]): Promise<ReportingProxy[]> {
  const [all, placed] = await Promise.all([istiod.proxies(), Promise.all(names.map((name) => placesOf(api, name)))]);
  // What two names have in common is at either's: the first is enough, and the fewest proxies are asked.
  const [first] = placed.sort((a, b) => a.nodes.size - b.nodes.size);
  const chosen = first ? all.filter(({ kind, node }) => kind === 'waypoint' || first.nodes.has(node)) : all;
  if (chosen.length === 0) throw new CommandError('no proxy reports to istiod: look with meshctl status');
  if (chosen.length > MAX_PROXIES)
    throw new CommandError(`${chosen.length} proxies would have to be asked, ${MAX_PROXIES} may be: name a pod, workload or service`);
  return chosen;
}

/** @throws {CommandError} where there is no such thing */
async function placesOf(api: KubeApi, wanted: string): Promise<{ nodes: Set<string> }> {
  const slash = wanted.indexOf('/');
  const [namespace, name] = [wanted.slice(0, slash), wanted.slice(slash + 1)];
  const [pods, services] = await Promise.all(
    ['pods', 'services'].map((kind) => api.list<KubeObject>(`/api/v1/namespaces/${namespace}/${kind}`)),
  );
  const service = services?.find(({ metadata }) => metadata.name === name.split('.', 1)[0]);
  const selector = Object.entries((service?.spec as { selector?: Record<string, string> } | undefined)?.selector ?? {});
  const found = (pods ?? []).filter(
    ({ metadata: { name: pod = '', labels = {} } }) =>
      name === '' ||
      pod === name ||
      (pod.startsWith(`${name}-`) && /^(?:[a-z0-9]+-)?[a-z0-9]+$/.test(pod.slice(name.length + 1))) ||
      (selector.length > 0 && selector.every(([label, value]) => labels[label] === value)),
  );
  if (found.length === 0) throw new CommandError(`there is no pod, workload or service ${wanted} (NAMESPACE/NAME, or -n)`);
  return { nodes: new Set(found.map(({ spec }) => (spec as { nodeName?: string } | undefined)?.nodeName ?? '')) };
}
