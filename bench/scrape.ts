/** What a scrape of ztunnel costs: how long the supervisor is busy with it, and whether a data worker notices (it must not). */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { metricsText } from '../common/server/metrics-text.ts';
import { createSegment, type SeriesAnnouncement, SeriesReader, SeriesWriter } from '../common/server/shared-series.ts';
import { stateDump } from '../common/state/config-dump.ts';
import { MeshStateWriter } from '../common/state/writer.ts';
import { metricFamilies, metrics } from '../ztunnel/metrics.ts';
import { syntheticPush } from './programs/synthetic-mesh.ts';
import { absoluteRow, type Bench, median, type Row } from './rows.ts';

const WORKERS = 2;
const SERIES = 10_000;
const ROUNDS = 9;

export const bench: Bench = {
  name: 'scrape',
  doc: 'The pause that a scrape of 10,000 series causes, in the supervisor and in the data workers',
  async run() {
    const reader = new SeriesReader(metricFamilies);
    const workers = Array.from({ length: WORKERS }, (_, id) => startWorker(reader, id));
    try {
      await quiet(500);
      const idle = await longestPause(workers, () => quiet(200));
      const busy: number[] = [];
      const supervisor: number[] = [];
      for (let i = 0; i < ROUNDS; i++) {
        busy.push(await longestPause(workers, async () => void supervisor.push(await scrape(reader))));
      }
      return [
        row({
          metric: "longest turn of a data worker beyond an idle one's",
          ours: Math.max(0, median(busy) - idle),
          target: 1,
        }),
        row({ metric: 'supervisor busy', unit: 'ms CPU', ours: median(supervisor) }),
        dumpRow(),
      ];
    } finally {
      for (const worker of workers) await worker.terminate();
    }
  },
};

const row = (fields: { metric: string; ours: number; unit?: string; case?: string; target?: number }): Row =>
  absoluteRow({ bench: 'scrape', case: `${SERIES} series, ${WORKERS} workers`, unit: 'ms', better: 'less', ...fields });

/** Every worker has every series, as where all of them serve the same pods. */
function startWorker(reader: SeriesReader, id: number): Worker {
  const segment = createSegment(SERIES);
  reader.attach(id, segment);
  const announcements: SeriesAnnouncement[] = [];
  const writer = new SeriesWriter(segment, (announcement) => announcements.push(announcement));
  const family = metrics.opened;
  for (let i = 0; i < SERIES; i++) {
    writer.slot(
      family,
      family.labels.map((label) => `${label}-${i % 500}`.concat(label === 'destination_workload' ? `-${i}` : '')),
    );
  }
  reader.announce(id, announcements);
  return new Worker(new URL('./programs/counting-worker.ts', import.meta.url), { workerData: { segment } });
}

/** CPU milliseconds of one scrape, without the way to the scraper. */
async function scrape(reader: SeriesReader): Promise<number> {
  const started = process.threadCpuUsage();
  const text = await metricsText(metricFamilies, reader.collect());
  if (text.length < SERIES * 100) throw new Error('the scrape lacks series');
  const { user, system } = process.threadCpuUsage(started);
  return (user + system) / 1000;
}

async function longestPause(workers: readonly Worker[], during: () => Promise<void>): Promise<number> {
  await Promise.all(workers.map(ask));
  await during();
  return Math.max(...(await Promise.all(workers.map(ask))));
}

async function ask(worker: Worker): Promise<number> {
  worker.postMessage('longest');
  const [longest]: number[] = await once(worker, 'message');
  return longest ?? 0;
}

/** A dump is asked for by a person; meanwhile the supervisor does nothing else. */
function dumpRow(): Row {
  const writer = new MeshStateWriter();
  writer.apply(syntheticPush(20_000));
  const rounds = Array.from({ length: 3 }, () => {
    const started = process.threadCpuUsage();
    JSON.stringify(stateDump(writer));
    const { user, system } = process.threadCpuUsage(started);
    return (user + system) / 1000;
  });
  return row({ case: '20,000 workloads', metric: 'config_dump, supervisor busy', unit: 'ms CPU', ours: median(rounds) });
}

const quiet = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
