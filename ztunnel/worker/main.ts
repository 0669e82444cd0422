/** Entry of a data worker's thread. An error that nobody caught ends the thread; the supervisor starts another one. */
import { readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { shrinkHeap } from '../../common/base/heap.ts';
import { createLog } from '../../common/base/log.ts';
import type { FromWorker, ToWorker, WorkerStart } from '../protocol.ts';
import { DataWorker } from './data-worker.ts';

const port = parentPort;
if (!port) throw new Error('this is a data worker of ztunnel, and not to be run by itself');
const start = workerData as WorkerStart;
const { settings } = start;
const logs = createLog({ level: settings.log.level, format: settings.logFormat, scope: 'proxy' });
const send = (message: FromWorker): void => port.postMessage(message);
const worker = new DataWorker(start, logs, send);
port.on('message', (message: ToWorker) => worker.receive(message));
// Loading is over, and nobody is served yet who would have to wait.
shrinkHeap();
// `/proc/thread-self` leads to PID/task/TID of the thread that asks.
send({ type: 'ready', tid: Number(basename(readlinkSync('/proc/thread-self'))) });
