/**
 * scripts/cluster: real Kubernetes for tests and trials. `up` starts a cluster and stays until Ctrl-C (or leaves it running, with `--detach`),
 * the other commands talk to one that runs. `inside` is what `up` starts for itself.
 */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, createReadStream, existsSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { errorMessage } from '../../common/base/errors.ts';
import { claim, forget, isRunning, listInstances, nodeNames, nodeProcess, pidOf, UsageError } from '../../playground/instance.ts';
import { MAX_NODES } from '../../playground/network/plan.ts';
import { TOOL_PATH } from '../../playground/node/command.ts';
import { missingRequirement, startInside } from '../../playground/outside.ts';
import { build, gatewayApiDefinitions, missingToBuild, type Parts } from './build.ts';
import { groupName, whyNoGroups } from './cgroups.ts';
import { startKeeper } from './keeper.ts';
import { ctr } from './node.ts';

const USAGE = `usage: cluster up [--nodes N] [--name NAME] [--kubeconfig FILE] [--ready-file FILE] [--detach]
       cluster build
       cluster load [--name NAME] TAR …
       cluster gateway-api [--name NAME]
       cluster kubectl [--name NAME] ARGUMENT …
       cluster node [--name NAME] NODE COMMAND [ARGUMENT …]
       cluster down [--name NAME]
       cluster list`;
const DEFAULT_NAME = 'warren';
const DOWN_PATIENCE_MS = 30_000;
const READY_POLL_MS = 100;

const options = {
  name: { type: 'string', default: DEFAULT_NAME },
  nodes: { type: 'string', default: '2' },
  kubeconfig: { type: 'string' },
  'ready-file': { type: 'string' },
  detach: { type: 'boolean', default: false },
} as const;

async function main(argv: string[]): Promise<number> {
  const [command, ...rest] = argv;
  try {
    if (command === 'inside') {
      const { runInside } = await import('./inside.ts');
      // Written by `up`, below.
      return await runInside(JSON.parse(rest[0] ?? '') as Parameters<typeof runInside>[0]);
    }
    const why = missingRequirement() ?? whyNoGroups();
    if (why !== undefined) throw new UsageError(why);
    if (command === 'kubectl' || command === 'node') {
      const named = rest[0] === '--name';
      const run = command === 'node' ? onNode : kubectl;
      return await run(named ? (rest[1] ?? '') : DEFAULT_NAME, rest.slice(named ? 2 : 0));
    }
    const { values, positionals } = parseArgs({ args: rest, options, strict: true, allowPositionals: command === 'load' });
    if (command === 'up') return await (values.detach ? upDetached(values) : up(values));
    if (command === 'build') return await build(say).then(() => 0);
    if (command === 'load') return await load(values.name, positionals);
    if (command === 'gateway-api') return await kubectl(values.name, ['apply', '--server-side', '-f', await gatewayApiDefinitions()]);
    if (command === 'down') return await down(values.name);
    if (command === 'list') return await list();
    throw new UsageError(USAGE);
  } catch (error) {
    say(errorMessage(error));
    const usage = error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
    return error instanceof UsageError || usage ? 2 : 1;
  }
}

type Values = ReturnType<typeof parseArgs<{ options: typeof options }>>['values'];

async function up(values: Values): Promise<number> {
  const nodes = Number(values.nodes);
  if (!Number.isInteger(nodes) || nodes < 1 || nodes > MAX_NODES)
    throw new UsageError(`--nodes ${values.nodes}: expected a number from 1 to ${MAX_NODES}`);
  const why = missingToBuild();
  if (why !== undefined) throw new UsageError(why);
  const instance = await claim(values.name ?? DEFAULT_NAME, 'cluster');
  const progress = (text: string): void => say(`cluster ${instance.name}: ${text}`);
  const group = groupName(instance.name, process.pid);
  const keeper = startKeeper(instance.folder, group);
  let stopping = false;
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      stopping = true;
      stop.abort();
    });
  }
  let status = 1;
  try {
    const parts = await build(progress, stop.signal);
    const startedMs = performance.now();
    const inner = JSON.stringify({ nodes, folder: instance.folder, group, parts });
    const outer = startInside(instance, {
      inner: [process.execPath, fileURLToPath(import.meta.url), 'inside', inner],
      kubeconfig: values.kubeconfig,
      onProgress: progress,
      onReady(kubeconfig) {
        const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
        say(`cluster ${instance.name}: ready after ${seconds} s, logs in ${join(instance.folder, 'logs')}`);
        process.stdout.write(`export KUBECONFIG=${values.kubeconfig ?? kubeconfig}\n`);
        if (values['ready-file'] !== undefined) writeFileSync(values['ready-file'], `${kubeconfig}\n`);
      },
    });
    stop.signal.addEventListener('abort', () => outer.stop());
    if (stop.signal.aborted) outer.stop();
    status = (await outer.ended).status;
  } catch (error) {
    if (!stopping) throw error;
    status = 0;
  } finally {
    await keeper.finish();
    instance.release();
    if (stopping) say(`cluster ${instance.name}: ended, nothing is left`);
  }
  return status;
}

/** For scripts: the cluster outlives this process, and `down` ends it. What is built is built here, where it can be watched. */
async function upDetached(values: Values): Promise<number> {
  const why = missingToBuild();
  if (why !== undefined) throw new UsageError(why);
  await build(say);
  const folder = mkdtempSync(join(tmpdir(), 'warren-cluster-'));
  const [ready, said] = [join(folder, 'ready'), join(folder, 'said')];
  const output = openSync(said, 'a');
  try {
    const named = ['--name', values.name ?? DEFAULT_NAME, '--nodes', values.nodes ?? '', '--ready-file', ready];
    const args = [...named, ...(values.kubeconfig === undefined ? [] : ['--kubeconfig', values.kubeconfig])];
    const child = spawn(process.execPath, [fileURLToPath(import.meta.url), 'up', ...args], {
      stdio: ['ignore', output, output],
      detached: true,
    });
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill('SIGTERM'));
    const ended = new Promise<number>((resolve) => child.once('close', (status) => resolve(status ?? 1)));
    for (;;) {
      const status = await Promise.race([ended, sleep(READY_POLL_MS)]);
      if (status === undefined && !existsSync(ready)) continue;
      process.stderr.write(readFileSync(said));
      if (status !== undefined) return status;
      if (values['ready-file'] !== undefined) writeFileSync(values['ready-file'], readFileSync(ready));
      child.unref();
      return 0;
    }
  } finally {
    closeSync(output);
    rmSync(folder, { recursive: true });
  }
}

async function down(name: string): Promise<number> {
  if (!(await isRunning(name, 'cluster'))) {
    forget(name, 'cluster');
    say(`no cluster named ${JSON.stringify(name)} is running`);
    return 0;
  }
  const pid = pidOf(name, 'cluster');
  if (pid === undefined) throw new Error(`cluster ${name} runs, but its process id is not known`);
  process.kill(pid, 'SIGTERM');
  const deadline = performance.now() + DOWN_PATIENCE_MS;
  while (await isRunning(name, 'cluster')) {
    if (performance.now() > deadline) process.kill(pid, 'SIGKILL');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return 0;
}

/** Each archive into each node's containerd, the nodes side by side. */
async function load(name: string, archives: readonly string[]): Promise<number> {
  if (archives.length === 0) throw new UsageError(USAGE);
  for (const archive of archives) {
    if (!statSync(archive, { throwIfNoEntry: false })?.isFile())
      throw new UsageError(`${archive} is no file: load takes image archives (scripts/images)`);
  }
  const nodes = nodeNames(name, 'cluster');
  const { debian }: Parts = await build(say);
  for (const archive of archives) {
    await Promise.all(nodes.map((node) => importInto(enter(name, node), debian, archive)));
    say(`${archive}: loaded on ${nodes.join(', ')}`);
  }
  return 0;
}

function importInto(enter: readonly string[], debian: string, archive: string): Promise<void> {
  const [program = '', ...args] = ctr(enter, debian, 'images', 'import', '-');
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'ignore', 'pipe'] });
    let complaint = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint += text;
    });
    child.once('error', reject);
    child.once('close', (status) => {
      if (status === 0) resolve();
      else reject(new Error(`${archive} could not be loaded: ${complaint.trim()}`));
    });
    child.stdin.on('error', () => undefined);
    createReadStream(archive).on('error', reject).pipe(child.stdin);
  });
}

async function kubectl(name: string, args: readonly string[]): Promise<number> {
  const found = (await listInstances('cluster')).find((each) => each.name === name);
  if (!found) throw new UsageError(`no cluster named ${JSON.stringify(name)} is running`);
  return spawnSync('kubectl', [`--kubeconfig=${found.kubeconfig}`, ...args], { stdio: 'inherit' }).status ?? 1;
}

/** Runs a command in a node's namespaces: what an administrator would do over ssh. */
async function onNode(name: string, [node, ...command]: readonly string[]): Promise<number> {
  if (node === undefined || command.length === 0) throw new UsageError(USAGE);
  const [program = '', ...args] = [...enter(name, node), ...command];
  return spawnSync(program, args, { stdio: 'inherit' }).status ?? 1;
}

function enter(name: string, node: string): string[] {
  return ['nsenter', `--target=${nodeProcess(name, node, 'cluster')}`, '--mount', '--net', '--uts', '--ipc', '--pid', '--cgroup', '--'];
}

async function list(): Promise<number> {
  const instances = await listInstances('cluster');
  for (const { name, pid, kubeconfig } of instances) process.stdout.write(`${name}\tpid ${pid}\t${kubeconfig}\n`);
  if (instances.length === 0) say('no cluster is running');
  return 0;
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

// A root shell need not have the administrator's folders in its PATH; ip and nft live there.
process.env.PATH = `${process.env.PATH ?? ''}:${TOOL_PATH}`;
process.exitCode = await main(process.argv.slice(2));
