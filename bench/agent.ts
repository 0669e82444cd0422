/** What enrolment costs a node: a running pod that is labelled, a thousand at once, and an agent that finds a thousand enrolled pods at its start. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { absoluteRow, type Bench, type Row } from './rows.ts';

const PODS = 1000;
const MAX_OUTPUT_BYTES = 1 << 20;

interface Measured {
  readonly singleMs: number;
  readonly singleWorstMs: number;
  readonly singleCpuMs: number;
  readonly manyMs: number;
  readonly restartCpuMs: number;
  readonly restartMs: number;
  readonly rssMegabytes: number;
}

export const bench: Bench = {
  name: 'agent',
  doc: 'Time that the node agent takes to enrol a running pod, and to take over 1,000 enrolled ones after its restart',
  async run(): Promise<Row[]> {
    const { singleMs, singleWorstMs, singleCpuMs, manyMs, restartCpuMs, restartMs, rssMegabytes } = await inItsOwnNetwork();
    const single = { bench: 'agent', case: 'a running pod is labelled', unit: 'ms', better: 'less' } as const;
    const many = { bench: 'agent', unit: 's', better: 'less' } as const;
    const restart = { ...many, case: `restart with ${PODS} enrolled pods, some without their rules` } as const;
    return [
      absoluteRow({ ...single, metric: 'from the change of the label to the annotation, median of 30', ours: singleMs, target: 50 }),
      absoluteRow({ ...single, metric: 'the slowest of them', ours: singleWorstMs }),
      absoluteRow({ ...single, metric: 'processor time of the agent and its programs for each', ours: singleCpuMs }),
      absoluteRow({ ...many, case: `${PODS} running pods are labelled at once`, metric: 'until all are enrolled', ours: manyMs / 1000 }),
      absoluteRow({
        ...restart,
        metric: 'from the start of the process until all are looked at and ztunnel has them',
        ours: restartMs / 1000,
        target: 10,
      }),
      absoluteRow({ ...restart, metric: 'processor time until then', ours: restartCpuMs / 1000 }),
      absoluteRow({ ...restart, unit: 'MB', metric: 'resident then', ours: rssMegabytes }),
    ];
  },
};

/** The agent's rules for the node's own probes belong into no real node. @throws with what the program said */
async function inItsOwnNetwork(): Promise<Measured> {
  const program = fileURLToPath(new URL('./programs/agent-lab.ts', import.meta.url));
  const script = 'ip link set lo up && exec "$@"';
  const { stdout, stderr } = await promisify(execFile)(
    'unshare',
    ['--net', 'sh', '-c', script, 'sh', process.execPath, program, String(PODS)],
    {
      maxBuffer: MAX_OUTPUT_BYTES,
    },
  );
  const line = stdout.trim().split('\n').at(-1) ?? '';
  if (!line.startsWith('{')) throw new Error(`the node of the bench ended without a result: ${stderr}`);
  return JSON.parse(line) as Measured;
}
