/** The table of a bench for any ways through: every subject in every round, so that they share whatever else the machine does. */
import { setTimeout as sleep } from 'node:timers/promises';
import { absoluteRow, median, type Row, ratioRow } from '../rows.ts';
import type { Subject } from './load.ts';
import { type BulkResult, type HttpResult, loadBulk, loadHttp, loadOpenLoop } from './load.ts';
import { undisturbed } from './stolen.ts';

/** By case, and within it by metric. */
export type Targets = Readonly<Record<string, Readonly<Record<string, number>>>>;

export interface TableOptions {
  readonly bench: string;
  readonly rounds: number;
  /** Of each measurement. */
  readonly seconds: number;
  readonly ours: Subject;
  readonly peers: readonly Subject[];
  /** What ours is held against: of a peer by name, ratios by case and metric; of none, ours itself. */
  readonly targets?: { readonly peerName: string; readonly ratios: Targets; readonly own: Targets };
  /** Cases whose names have this text in them; all where it is not given. */
  readonly only?: string | undefined;
  progress(text: string): void;
}

type Values = Map<string, number[]>;

const HTTP_CASES = [
  { name: 'keep-alive, 1 connection', connections: 1, keepAlive: true },
  { name: 'keep-alive, 64 connections', connections: 64, keepAlive: true },
  { name: 'keep-alive, 512 connections', connections: 512, keepAlive: true },
  { name: 'new connections, 16 at once', connections: 16, keepAlive: false },
] as const;
/** Processor time of a request in one of the cases, in microseconds; undefined where the case is none of requests. */
export async function requestMicros(subject: Subject, name: string, seconds: number): Promise<number | undefined> {
  const found = HTTP_CASES.find((one) => one.name === name);
  return found && (await loadHttp(subject, found.connections, seconds, found.keepAlive)).cpuMicros;
}

const BULK_CASES = [
  { name: 'bulk, 1 stream', streams: 1 },
  { name: 'bulk, 4 streams', streams: 4 },
] as const;

export const OPEN_LOOP = 'open loop, 64 connections, 0.7 of the slower maximum';
/**
 * Tens of thousands of connections are not enough for V8 to compile what each of them runs once as well as it can: after 10 seconds its compiler's
 * threads still have a tenth of the processor time, and a new connection costs less from round to round.
 */
const WARM_UP_SECONDS = 25;
const SETTLED_AFTER_MS = 10_000;

const OPEN_LOOP_OF = 'keep-alive, 64 connections';

const METRICS: Readonly<Record<string, { unit: string; better: 'less' | 'more' }>> = {
  'requests per second': { unit: '/s', better: 'more' },
  'CPU per request': { unit: 'us', better: 'less' },
  p50: { unit: 'us', better: 'less' },
  p99: { unit: 'us', better: 'less' },
  throughput: { unit: 'Gbit/s', better: 'more' },
  'CPU per GiB': { unit: 's', better: 'less' },
  'RSS idle': { unit: 'MB', better: 'less' },
  'RSS after load': { unit: 'MB', better: 'less' },
};

/** One row for each case, metric and peer; what cannot be compared (processor time of a direct connection) is left out. */
export async function tunnelTable({ bench, rounds, seconds, ours, peers, targets, only = '', progress }: TableOptions): Promise<Row[]> {
  const subjects = [ours, ...peers];
  const alone = undisturbed();
  const wanted = ({ name }: { readonly name: string }): boolean => name.includes(only);
  // Its rate is made from another case.
  const openLoopWanted = wanted({ name: OPEN_LOOP });
  const httpCases = HTTP_CASES.filter((one) => wanted(one) || (openLoopWanted && one.name === OPEN_LOOP_OF));
  const bulkCases = BULK_CASES.filter(wanted);
  const measured = new Map<Subject, Values>(subjects.map((subject) => [subject, new Map()]));
  const record = (subject: Subject, key: string, value: number): void => {
    const values = measured.get(subject);
    const list = values?.get(key) ?? [];
    list.push(value);
    values?.set(key, list);
  };
  const rss = (key: string): void => {
    for (const subject of subjects)
      if (subject.proxies.length > 0) record(subject, `memory\n${key}`, subject.lab.usage(subject.proxies).rssMegabytes);
  };
  // What a start leaves behind is given back after some seconds.
  await sleep(SETTLED_AFTER_MS);
  rss('RSS idle');
  // What runs for weeks is not measured in its first seconds: round 0 counts for nobody.
  for (let round = 0; round <= rounds; round++) {
    for (const { name, connections, keepAlive } of httpCases) {
      for (const subject of subjects) {
        if (round === 0) await loadHttp(subject, connections, keepAlive ? seconds : WARM_UP_SECONDS, keepAlive);
        else recordHttp(subject, name, await alone(() => loadHttp(subject, connections, seconds, keepAlive)));
      }
      progress(`round ${round}: ${name}`);
    }
    for (const { name, streams } of bulkCases) {
      for (const subject of subjects) {
        if (round === 0) await loadBulk(subject, streams, seconds);
        else recordBulk(subject, name, await alone(() => loadBulk(subject, streams, seconds)));
      }
      progress(`round ${round}: ${name}`);
    }
  }
  if (openLoopWanted) await openLoop();
  rss('RSS after load');
  return rows();

  /** At 0.7 of what the slower of the two can do, both the same: at its own maximum a queue says more of the load than of the proxy. */
  async function openLoop(): Promise<void> {
    const proxies = subjects.filter((subject) => subject.proxies.length > 0);
    const slowest = Math.min(...proxies.map((subject) => median(measured.get(subject)?.get(`${OPEN_LOOP_OF}\nrequests per second`) ?? [])));
    const perSecond = 0.7 * slowest;
    for (let round = 1; round <= rounds; round++) {
      for (const subject of subjects) {
        const { p50Micros, p99Micros } = await alone(() => loadOpenLoop(subject, { connections: 64, perSecond, seconds }));
        record(subject, `${OPEN_LOOP}\np50`, p50Micros);
        record(subject, `${OPEN_LOOP}\np99`, p99Micros);
      }
      progress(`round ${round}: open loop`);
    }
  }

  function recordHttp(subject: Subject, name: string, result: HttpResult): void {
    record(subject, `${name}\nrequests per second`, result.perSecond);
    record(subject, `${name}\np50`, result.p50Micros);
    record(subject, `${name}\np99`, result.p99Micros);
    if (subject.proxies.length > 0) record(subject, `${name}\nCPU per request`, result.cpuMicros);
  }

  function recordBulk(subject: Subject, name: string, result: BulkResult): void {
    record(subject, `${name}\nthroughput`, result.gigabitsPerSecond);
    if (subject.proxies.length > 0) record(subject, `${name}\nCPU per GiB`, result.cpuSecondsPerGib);
  }

  function rows(): Row[] {
    const found: Row[] = [];
    for (const [key, values] of measured.get(ours) ?? []) {
      const [name = '', metric = ''] = key.split('\n');
      const { unit = '', better = 'less' } = METRICS[metric] ?? {};
      for (const peer of peers) {
        const theirs = measured.get(peer)?.get(key);
        if (!theirs) continue;
        const target = peer.name === targets?.peerName ? targets.ratios[name]?.[metric] : undefined;
        const row = { bench, case: name, metric, unit, better, ours: median(values), peer: median(theirs), peerName: peer.name };
        found.push(ratioRow({ ...row, ...(target === undefined ? {} : { target }) }));
      }
      const own = targets?.own[name]?.[metric];
      if (own !== undefined || !found.some((row) => row.case === name && row.metric === metric)) {
        const row = { bench, case: name, metric, unit, better, ours: median(values) };
        found.push(absoluteRow({ ...row, ...(own === undefined ? {} : { target: own }) }));
      }
    }
    return found;
  }
}
