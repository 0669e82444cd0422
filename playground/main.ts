/** playground: `up` starts a cluster and stays until Ctrl-C, `down` ends one, `list` shows what runs. `inside` is what `up` starts for itself. */
import { spawnSync } from 'node:child_process';
import { writeFileSync, writeSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { errorMessage } from '../common/base/errors.ts';
import { claim, forget, isRunning, listInstances, nodeProcess, pidOf, UsageError } from './instance.ts';
import { TOOL_PATH } from './node/command.ts';
import { missingRequirement, playgroundInside, startInside } from './outside.ts';

const USAGE = `usage: playground up [--name NAME] [--nodes N] [--mesh] [--kubeconfig FILE] [--ready-file FILE] [--ready-fd FD] [--log-level LEVEL]
       playground down [--name NAME]
       playground list
       playground node [--name NAME] NODE COMMAND [ARGUMENT …]`;
const DEFAULT_NAME = 'warren';
const DEFAULT_LOG_LEVEL = 'error';
const DOWN_PATIENCE_MS = 10_000;

const options = {
  name: { type: 'string', default: DEFAULT_NAME },
  nodes: { type: 'string', default: '2' },
  mesh: { type: 'boolean', default: false },
  kubeconfig: { type: 'string' },
  'ready-file': { type: 'string' },
  'ready-fd': { type: 'string' },
  'log-level': { type: 'string', default: DEFAULT_LOG_LEVEL },
} as const;

async function main(argv: string[]): Promise<number> {
  const [command, ...rest] = argv;
  try {
    if (command === 'node') return runOnNode(rest);
    const { values } = parseArgs({ args: rest, options, strict: true });
    const nodes = Number(values.nodes);
    if (!Number.isInteger(nodes) || nodes < 1 || nodes > 32)
      throw new UsageError(`--nodes ${values.nodes}: expected a number from 1 to 32`);
    await checkLogLevel(values['log-level']);
    if (values['ready-fd'] !== undefined && !/^\d+$/.test(values['ready-fd']))
      throw new UsageError(`--ready-fd ${values['ready-fd']}: expected the number of an open descriptor`);
    if (command === 'up') return await up(values, nodes);
    if (command === 'down') return await down(values.name);
    if (command === 'list') return await list();
    if (command === 'inside') {
      const { runInside } = await import('./inside.ts');
      return await runInside({ name: values.name, nodes, mesh: values.mesh, logLevel: values['log-level'] });
    }
    throw new UsageError(USAGE);
  } catch (error) {
    process.stderr.write(`${errorMessage(error)}\n`);
    return error instanceof UsageError || (error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS'))
      ? 2
      : 1;
  }
}

/** @throws {UsageError} naming those that there are */
async function checkLogLevel(text: string): Promise<void> {
  if (text === DEFAULT_LOG_LEVEL) return;
  // Not loaded for nothing: every start would pay for the log's package.
  const { LOG_LEVELS } = await import('../common/base/log.ts');
  if (!LOG_LEVELS.some((level) => level === text)) throw new UsageError(`--log-level ${text}: expected one of ${LOG_LEVELS.join(', ')}`);
}

type Values = ReturnType<typeof parseArgs<{ options: typeof options }>>['values'];

async function up(values: Values, nodes: number): Promise<number> {
  const missing = missingRequirement();
  if (missing) throw new UsageError(missing);
  const startedMs = performance.now();
  const instance = await claim(values.name ?? DEFAULT_NAME);
  let stopping = false;
  const outer = startInside(instance, {
    inner: playgroundInside(instance.name, { nodes, mesh: values.mesh ?? false, logLevel: values['log-level'] ?? DEFAULT_LOG_LEVEL }),
    kubeconfig: values.kubeconfig,
    onProgress: (text) => process.stderr.write(`playground ${instance.name}: ${text}\n`),
    onReady(kubeconfig) {
      const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
      process.stdout.write(
        `playground ${instance.name}: ready after ${seconds} s\n  export KUBECONFIG=${values.kubeconfig ?? kubeconfig}\n`,
      );
      if (values['ready-file'] !== undefined) writeFileSync(values['ready-file'], `${kubeconfig}\n`);
      if (values['ready-fd'] !== undefined) writeSync(Number(values['ready-fd']), `${kubeconfig}\n`);
    },
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      stopping = true;
      outer.stop();
    });
  }
  const { status } = await outer.ended;
  instance.release();
  if (stopping) process.stderr.write(`playground ${instance.name}: ended, nothing is left\n`);
  return status;
}

async function down(name: string): Promise<number> {
  if (!(await isRunning(name))) {
    forget(name);
    process.stderr.write(`no playground named ${JSON.stringify(name)} is running\n`);
    return 0;
  }
  const pid = pidOf(name);
  if (pid === undefined) throw new Error(`playground ${name} runs, but its process id is not known`);
  process.kill(pid, 'SIGTERM');
  const deadline = performance.now() + DOWN_PATIENCE_MS;
  while (await isRunning(name)) {
    if (performance.now() > deadline) process.kill(pid, 'SIGKILL');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  forget(name);
  return 0;
}

/** Runs a command in a node's namespaces: what an administrator would do over ssh. */
function runOnNode(argv: string[]): number {
  const named = argv[0] === '--name';
  const [node, ...command] = argv.slice(named ? 2 : 0);
  if (node === undefined || command.length === 0) throw new UsageError(USAGE);
  const pid = nodeProcess(named ? (argv[1] ?? '') : DEFAULT_NAME, node);
  const { status } = spawnSync('nsenter', [`--target=${pid}`, '--mount', '--net', '--uts', '--pid', ...command], { stdio: 'inherit' });
  return status ?? 1;
}

async function list(): Promise<number> {
  const instances = await listInstances();
  for (const { name, pid, kubeconfig } of instances) process.stdout.write(`${name}\tpid ${pid}\t${kubeconfig}\n`);
  if (instances.length === 0) process.stderr.write('no playground is running\n');
  return 0;
}

// A root shell need not have the administrator's folders in its PATH; ip and nft live there.
process.env.PATH = `${process.env.PATH ?? ''}:${TOOL_PATH}`;
process.exitCode = await main(process.argv.slice(2));
