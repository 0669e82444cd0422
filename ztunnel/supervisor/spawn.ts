/** Starts a data worker's thread, and looks at how much it works. */
import { readFileSync } from 'node:fs';
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

/** Of the clock in /proc: always this, whatever the kernel was built with (proc(5), sysconf(_SC_CLK_TCK)). */
const TICK_MS = 10;

/** Processor time of one of this process's threads; undefined where it has ended. */
export function threadCpuMs(tid: number): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/self/task/${tid}/stat`, 'latin1');
  } catch {
    // The thread has ended meanwhile.
    return undefined;
  }
  // The thread's name may have anything in it; what follows its parenthesis is numbers. The 14th and 15th field are user and system time.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}
