/**
 * Load of every kind through a pair of ztunnels for minutes, and whether their memory grows meanwhile: resident memory and the data workers' heaps,
 * as slopes over time. `scripts/bench soak --minutes 10`.
 */
import { absoluteRow, type Bench, type Row } from './rows.ts';
import { Lab, type Place } from './support/lab.ts';
import { loadBulk, loadHttp, type Subject } from './support/load.ts';
import { ztunnelCommand } from './support/release.ts';
import { unwindable } from './support/unwinding.ts';
import { ztunnelPair } from './ztunnel.ts';

const DEFAULT_MINUTES = 10;
/** Code that is compiled, pools that fill, arenas of the allocator: the first minutes of any process grow. */
const WARM_UP = 0.3;
/** Megabytes a minute; what is less cannot be told from the garbage of one sample. */
const MOST_SLOPE = 0.5;
const METRICS = 'http://127.0.0.1:15020/metrics';

type Point = readonly [minutes: number, megabytes: number];

interface Sample {
  readonly minutes: number;
  readonly rss: number;
  readonly heap: number;
}

export const bench: Bench = {
  name: 'soak',
  timed: true,
  doc: 'minutes of requests, new connections and bulk through a pair of ztunnels: the slope of their memory (--minutes, 10 by default)',
  async run({ minutes = DEFAULT_MINUTES }) {
    await using labs = unwindable();
    const lab = labs.use(new Lab());
    await lab.startServers();
    const pair = await ztunnelPair('ours', ztunnelCommand(), lab);
    const places: readonly [string, Place][] = [
      ['server', lab.far],
      ['client', lab.near],
    ];
    const samples = new Map(places.map(([name]): [string, Sample[]] => [name, []]));
    const startedAt = performance.now();
    const elapsed = (): number => (performance.now() - startedAt) / 60_000;
    while (elapsed() < minutes) {
      await cycle(pair);
      for (const [i, [name, place]] of places.entries()) {
        const proxy = pair.proxies[i];
        if (!proxy) continue;
        samples.get(name)?.push({ minutes: elapsed(), rss: lab.usage([proxy]).rssMegabytes, heap: await heapMegabytes(lab, place) });
      }
      const now = [...samples].map(([name, all]) => `${name} ${all.at(-1)?.rss.toFixed(0)} MB, heaps ${all.at(-1)?.heap.toFixed(1)} MB`);
      console.error(`${elapsed().toFixed(1)} min: ${now.join('; ')}`);
    }
    return [...samples].flatMap(([name, all]) => rowsOf(name, minutes, all));
  },
};

/** Some seconds of each kind of load. */
async function cycle(pair: Subject): Promise<void> {
  await loadHttp(pair, 64, 4, true);
  await loadHttp(pair, 16, 3, false);
  await loadHttp(pair, 8, 2, true, '/1m');
  await loadBulk(pair, 4, 2);
}

/** What the data workers' heaps use, together. */
async function heapMegabytes(lab: Lab, place: Place): Promise<number> {
  const script = `process.stdout.write(await (await fetch(${JSON.stringify(METRICS)})).text())`;
  const text = await lab.run(place, process.execPath, '--input-type=module', '-e', script);
  const bytes = [...text.matchAll(/^warren_worker_heap_bytes\{[^}]*\} (\S+)/gm)].reduce((sum, [, value]) => sum + Number(value), 0);
  return bytes / 2 ** 20;
}

function rowsOf(name: string, minutes: number, samples: readonly Sample[]): Row[] {
  const warm = samples.filter((sample) => sample.minutes >= minutes * WARM_UP);
  const common = { bench: 'soak', case: `${name}, ${minutes} min`, better: 'less' } as const;
  const last = warm.at(-1);
  return (['rss', 'heap'] as const).flatMap((what) => {
    const label = what === 'rss' ? 'resident memory' : 'heaps of the data workers';
    return [
      absoluteRow({ ...common, metric: `${label}, at the end`, unit: 'MB', ours: last?.[what] ?? 0 }),
      absoluteRow({
        ...common,
        metric: `${label}, slope after the first ${Math.round(minutes * WARM_UP * 60)} s`,
        unit: 'MB/min',
        ours: slope(lowest(warm.map((sample) => [sample.minutes, sample[what]]))),
        target: MOST_SLOPE,
      }),
    ];
  });
}

const WINDOWS = 8;

/** The lowest of each eighth of the time: what is there beside garbage that has not been collected yet. */
function lowest(points: readonly Point[]): Point[] {
  const size = Math.max(1, Math.ceil(points.length / WINDOWS));
  const windows = Array.from({ length: Math.ceil(points.length / size) }, (_, i) => points.slice(i * size, (i + 1) * size));
  return windows.map((window) => window.reduce((least, point) => (point[1] < least[1] ? point : least), window[0] ?? [0, 0]));
}

/** By the median of the slopes of all pairs (Theil and Sen): one that is off does not bend it. */
function slope(points: readonly Point[]): number {
  const slopes = points.flatMap(([x, y], i) => points.slice(i + 1).map(([later, value]) => (value - y) / (later - x)));
  if (slopes.length === 0) throw new Error('too short for a slope: more minutes');
  const sorted = slopes.sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}
