/**
 * Loaded into a ztunnel under test (`--import`): lets a test break one of its data workers. The file that WORKER_FAULT names says which and
 * how: `NUMBER throw`, `NUMBER heap` or `NUMBER loop`.
 */
import { readFileSync } from 'node:fs';
import { isMainThread, workerData } from 'node:worker_threads';

if (!isMainThread && process.env.WORKER_FAULT !== undefined) {
  setInterval(() => {
    let fault;
    try {
      fault = readFileSync(process.env.WORKER_FAULT, 'utf8').trim().split(' ');
    } catch {
      // Nothing is to be broken yet.
      return;
    }
    if (Number(fault[0]) !== workerData.index) return;
    if (fault[1] === 'throw') throw new Error('a fault of the test');
    const kept = [];
    while (fault[1] === 'heap') kept.push(new Array(100_000).fill(kept.length).map((n) => ({ n })));
    for (;;);
  }, 20);
}
