/**
 * Prints the memory that a supervisor and two workers take together with the workloads of one push: `state-memory.ts FILE COUNT` (needs
 * --expose-gc). The file is a control plane's answer as it comes over the wire, and is decoded as the xDS client decodes it.
 */
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { DeltaDiscoveryResponse } from '../../common/codec/gen/discovery.ts';
import { MeshStateWriter } from '../../common/state/writer.ts';

const WORKERS = 2;
const LOOKUPS = 20_000;
// V8's memory reducer waits for eight seconds of quiet.
const SETTLE_MS = 12_000;

const [, , file = '', count = ''] = process.argv;
const writer = new MeshStateWriter();
const workers = Array.from(
  { length: WORKERS },
  () => new Worker(new URL('./state-worker.ts', import.meta.url), { workerData: { state: writer.shared } }),
);
const applyMs = apply(file);
await settle(Number(count));
const status = readFileSync('/proc/self/status', 'utf8');
const megabytes = (field: string): number => Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) / 1024;
console.log(JSON.stringify({ rss: megabytes('VmRSS'), peak: megabytes('VmHWM'), applyMs, shared: writer.stats().bytes / 2 ** 20 }));
for (const worker of workers) await worker.terminate();

function apply(path: string): number {
  const response = DeltaDiscoveryResponse.decode(readFileSync(path));
  const resources = response.resources.map(({ name, version, resource }) => ({
    name,
    version,
    bytes: resource?.value ?? new Uint8Array(),
  }));
  const before = process.cpuUsage();
  const { rejected } = writer.apply({ typeUrl: response.typeUrl, resources, removed: [] });
  if (rejected.length > 0) throw new Error(`rejected: ${JSON.stringify(rejected[0])}`);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/**
 * Has every worker look things up, everybody collect garbage, and V8 the time to give back what it holds in reserve: what counts is what a
 * node pays while nothing happens; the peak is reported beside it.
 */
async function settle(workloads: number): Promise<void> {
  await Promise.all(
    workers.map(
      (worker) =>
        new Promise<void>((resolve) => {
          worker.once('message', () => resolve());
          worker.postMessage({ workloads, lookups: LOOKUPS });
        }),
    ),
  );
  globalThis.gc?.();
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  globalThis.gc?.();
}
