/** The CNI plugin's executable: what a call costs a pod's start, beside what the agent takes (which `agent` measures). */
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { absoluteRow, type Bench, type Row } from './rows.ts';

const ROUNDS = 100;
/** A kubelet makes pods one after the other in bursts; slower than this, the plugin would be what they wait for. */
const TARGET_MS = 150;
const ANSWER = 'HTTP/1.1 200 OK\r\n\r\n';
const CONFIG = {
  cniVersion: '1.0.0',
  name: 'net',
  type: 'istio-cni',
  prevResult: { cniVersion: '1.0.0', ips: [{ address: '10.0.1.7/24' }] },
};

async function run(): Promise<Row[]> {
  const folder = mkdtempSync(join(tmpdir(), 'warren-bench-'));
  // In a thread of its own: calls are waited for in this one.
  const agent = new Worker(
    `const { workerData, parentPort } = require('node:worker_threads');
     require('node:net').createServer((s) => { s.on('error', () => {}); s.once('data', () => s.end(${JSON.stringify(ANSWER)})); })
       .listen(workerData, () => parentPort.postMessage('listening'))`,
    { eval: true, workerData: join(folder, 'pluginevent.sock') },
  );
  try {
    mkdirSync(join(folder, 'bin'));
    const executable = join(folder, 'bin/istio-cni');
    copyFileSync(execFileSync(join(import.meta.dirname, '../scripts/plugin'), { encoding: 'utf8' }).trim(), executable);
    await new Promise((resolve) => agent.once('message', resolve));
    const row = (name: string, metric: string, unit: string, ours: number, target?: number): Row =>
      absoluteRow({ bench: 'plugin', case: name, metric, unit, ours, better: 'less', ...(target !== undefined && { target }) });
    const rows = (['VERSION', 'ADD'] as const).flatMap((command) => {
      const times = Array.from({ length: ROUNDS }, () => timed(executable, command, folder)).sort((a, b) => a - b);
      const at = (part: number): number => times[Math.floor(times.length * part)] ?? Number.NaN;
      return [row(command, 'median', 'ms', at(0.5), TARGET_MS), row(command, 'p95', 'ms', at(0.95), TARGET_MS)];
    });
    return [...rows, row('executable', 'size', 'MB', statSync(executable).size / 1e6)];
  } finally {
    await agent.terminate();
    rmSync(folder, { recursive: true });
  }
}

function timed(executable: string, command: string, folder: string): number {
  const started = performance.now();
  const { status, stdout } = spawnSync(executable, [], {
    input: JSON.stringify({ ...CONFIG, cni_agent_run_dir: folder }),
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: 'c1',
      CNI_NETNS: '/var/run/netns/x',
      CNI_IFNAME: 'eth0',
      CNI_ARGS: 'K8S_POD_NAMESPACE=shop;K8S_POD_NAME=orders-1',
    },
  });
  if (status !== 0) throw new Error(`${command}: ${stdout}`);
  return performance.now() - started;
}

export const bench: Bench = {
  name: 'plugin',
  doc: "start-up of the CNI plugin's executable, and a whole call with an agent that answers at once",
  run,
};
