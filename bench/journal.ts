/** What the decision journal costs: processor time for each connection and request that was made before, and memory when it is full. */
import { Journal } from '../common/decision/journal.ts';
import { fakeRequest } from '../test/support/waypoint-requests.ts';
import { WaypointJournal } from '../waypoint/worker/journal.ts';
import { ConnectionJournal, type JournaledFacts } from '../ztunnel/worker/journal.ts';
import { absoluteRow, type Bench, median, type Row } from './rows.ts';

const CALLS = 200_000;
const ROUNDS = 5;
/** Of a thousand different callers, or paths: no look-up is of the one before. */
const KINDS = 1000;
const MAX_BYTES = 8 << 20;

export const bench: Bench = {
  name: 'journal',
  doc: 'What recording a decision costs a connection and a request, and the memory of a full journal',
  async run() {
    return [connectionRow(), requestRow(), memoryRow()];
  },
};

const row = { bench: 'journal', better: 'less' } as const;

function connectionRow(): Row {
  const journal = new ConnectionJournal(new Journal({ maxBytes: MAX_BYTES, slowMs: 1000 }), () => 1);
  const made = Array.from({ length: KINDS }, (_, i) => connection(i));
  const ours = timed((i) => journal.record(made[i % KINDS] as JournaledFacts, END));
  // A connection with its tunnel costs ztunnel hundreds of microseconds: a hundredth of them.
  return absoluteRow({ ...row, case: 'a connection', metric: 'time', unit: 'ns CPU', ours, target: 3000 });
}

function requestRow(): Row {
  const asked = { headers: ['x-tier'], query: [], claims: [], principal: false, audiences: false, presenter: false };
  const journal = new WaypointJournal(new Journal({ maxBytes: MAX_BYTES, slowMs: 1000 }), { askedOf: () => asked }, () => 1);
  const requests = Array.from({ length: 100 }, (_, i) => fakeRequest(`/orders/${i}`, ['x-tier', 'gold', 'user-agent', 'bench']));
  const delivered = { status: 200, fields: [], trailers: undefined, bytes: 100, messages: 0, grpcStatus: undefined };
  const ours = timed((i) => journal.request(requests[i % requests.length] as ReturnType<typeof fakeRequest>, delivered, 1));
  return absoluteRow({ ...row, case: 'a request, one header asked for', metric: 'time', unit: 'ns CPU', ours, target: 3000 });
}

function memoryRow(): Row {
  const journal = new Journal({ maxBytes: MAX_BYTES, slowMs: 1000 });
  const recorder = new ConnectionJournal(journal, () => 1);
  globalThis.gc?.();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < 100_000; i++) recorder.record(connection(i), END);
  globalThis.gc?.();
  const ours = (process.memoryUsage().heapUsed - before) / 2 ** 20;
  if (journal.size === 0) throw new Error('nothing was recorded');
  return absoluteRow({ ...row, case: 'full, its limit 8 MiB', metric: 'heap', unit: 'MiB', ours, target: 12 });
}

const END = { policy: 'shop/allow-web', error: undefined, durationMs: 1, sent: 1, received: 1 };

function connection(i: number): JournaledFacts {
  return {
    direction: 'inbound',
    id: String(i).padStart(32, '0'),
    source: { ip: `10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`, port: 40_000 },
    sourceWorkload: undefined,
    sourceIdentity: 'spiffe://cluster.local/ns/shop/sa/web',
    target: { ip: '10.0.0.1', port: 8080 },
    destinationWorkload: undefined,
    service: { namespace: 'shop', hostname: 'orders.shop.svc.cluster.local' },
    mutualTls: true,
  };
}

function timed(run: (i: number) => void): number {
  for (let i = 0; i < CALLS; i++) run(i);
  const rounds = Array.from({ length: ROUNDS }, () => {
    const started = process.cpuUsage();
    for (let i = 0; i < CALLS; i++) run(i);
    const { user, system } = process.cpuUsage(started);
    return ((user + system) * 1000) / CALLS;
  });
  return median(rounds);
}
