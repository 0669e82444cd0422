/** Starts a data worker's thread. */
import { Worker } from 'node:worker_threads';
import type { FromWorker, ToWorker, WorkerStart } from '../protocol.ts';
import type { WorkerThread } from './workers.ts';

// In a release the files are JavaScript, and nothing rewrites a name within new URL().
const ENTRY = new URL(import.meta.url.endsWith('.ts') ? '../worker/main.ts' : '../worker/main.js', import.meta.url);

export function spawnWorker(start: WorkerStart): WorkerThread {
  const worker = new Worker(ENTRY, {
    workerData: start,
    name: `data-${start.index}`,
    resourceLimits: { maxOldGenerationSizeMb: start.settings.workerHeapMb },
  });
  return {
    threadId: worker.threadId,
    postMessage: (message: ToWorker) => worker.postMessage(message),
    terminate: () => worker.terminate(),
    onMessage: (listener) => void worker.on('message', (message: FromWorker) => listener(message)),
    onError: (listener) => void worker.on('error', listener),
    onExit: (listener) => void worker.on('exit', listener),
  };
}
