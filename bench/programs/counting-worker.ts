/** A thread that does what a data worker does as far as a scrape is concerned: short turns, each counting in shared series. */
import { parentPort, workerData } from 'node:worker_threads';

const { segment }: { segment: { memory: SharedArrayBuffer } } = workerData;
const values = new Float64Array(segment.memory);
let longest = 0;
let last = performance.now();

const turn = (): void => {
  const now = performance.now();
  longest = Math.max(longest, now - last);
  last = now;
  for (let slot = 0; slot < 50; slot++) values[slot] = (values[slot] ?? 0) + 1;
  setTimeout(turn, 1);
};
turn();

parentPort?.on('message', () => {
  parentPort?.postMessage(longest);
  longest = 0;
});
