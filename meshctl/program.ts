/** What meshctl can be told: every command with its flags. Each is loaded only when it is called, so that `--help` and `version` start at once. */
import { Command, Help, type Option } from 'commander';
import { addAnalyze } from './commands/analyze.ts';
import { addBypass } from './commands/bypass.ts';
import { addCert } from './commands/certificates.ts';
import { addCompletion } from './commands/completion.ts';
import { addInstallation } from './commands/installation.ts';
import { addLive } from './commands/live.ts';
import { addOperations } from './commands/operations.ts';
import { addState } from './commands/state.ts';
import { addTruth } from './commands/truth.ts';
import { addWaypoint } from './commands/waypoints.ts';
import type { Connection } from './terminal.ts';

/** Of what could not be asked, wrong flags among it. */
const USAGE = 2;

const plainHelp = new Help();

/** That a flag is not set, or names nothing, unless it is given is no news. */
const optionDescription = (option: Option): string =>
  option.defaultValue === false || (Array.isArray(option.defaultValue) && option.defaultValue.length === 0)
    ? option.description
    : plainHelp.optionDescription(option);

/** Commander's error and its guess, which it writes in two lines; where it has none, where to look. */
function usageError(text: string): string {
  const line = text
    .replace(/^error: /, '')
    .replaceAll(/\s+/g, ' ')
    .trim();
  return line.endsWith('?)') ? line : `${line} (--help says what there is)`;
}

/** @param env of the process: kubeconfigs are found by it */
export function createProgram(env: Readonly<Record<string, string | undefined>>): Command {
  const program = new Command('meshctl')
    .description('Drives a Warren mesh and tells the truth about it.')
    .option('-c, --kubeconfig <file>', 'kubeconfig file (default: $KUBECONFIG, then ~/.kube/config)')
    .option('--context <name>', 'context of the kubeconfig')
    .option('-i, --istioNamespace <name>', 'namespace of the control plane', 'istio-system')
    // Beside its own flags, each command says how to reach another cluster.
    .configureHelp({ showGlobalOptions: true, optionDescription })
    // One line with the mend: all of the help would push it off the screen.
    .configureOutput({ outputError: (text, write) => write(`meshctl: ${usageError(text)}\n`) })
    .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : USAGE));
  const connection = (): Connection => {
    const { kubeconfig, context, istioNamespace } = program.opts<{ kubeconfig?: string; context?: string; istioNamespace: string }>();
    return { ...(kubeconfig && { kubeconfig }), ...(context && { context }), systemNamespace: istioNamespace, env };
  };

  addInstallation(program, connection);
  addAnalyze(program, connection);
  addBypass(program, connection);
  addCert(program);
  addState(program, connection);
  addTruth(program, connection);
  addLive(program, connection);
  addOperations(program, connection);

  program
    .command('status')
    .description('control plane, ztunnel per node, enrolled namespaces, waypoints, certificates, and problems in plain words')
    .option('-o, --output <format>', 'text, wide, json or yaml', 'text')
    .addHelpText('after', '\nExit status: 0 healthy, 1 degraded, 2 the cluster could not be asked.')
    .action(async (options: { output: string }) => {
      const { status } = await import('./commands/status.ts');
      process.exitCode = await status({ ...connection(), output: options.output });
    });

  const ambient = program.command('ambient').description('puts namespaces into the mesh and takes them out');
  for (const [name, description] of [
    ['enable', 'labels the namespace, as `kubectl label namespace NAME istio.io/dataplane-mode=ambient` does, and waits for its pods'],
    ['disable', 'takes the label away and waits until its pods are out of the mesh'],
  ] as const) {
    ambient
      .command(`${name} <namespace>`)
      .description(description)
      .option('--no-wait', 'return at once')
      .option('--timeout <duration>', 'how long to wait for the pods: 60, 60s, 2m', '60s')
      .action(async (namespace: string, options: { wait: boolean; timeout: string }) => {
        const { setEnrolled } = await import('./commands/ambient.ts');
        process.exitCode = await setEnrolled({
          ...connection(),
          namespace,
          enrolled: name === 'enable',
          wait: options.wait,
          timeout: options.timeout,
        });
      });
  }

  ambient
    .command('list')
    .description('namespaces in the mesh, and how many of their pods are')
    .option('-o, --output <format>', 'text, wide, json or yaml', 'text')
    .action(async (options: { output: string }) => {
      const { listEnrolled } = await import('./commands/ambient.ts');
      process.exitCode = await listEnrolled({ ...connection(), ...options });
    });

  addWaypoint(program, connection);

  const ca = program.command('ca').description('the roots of the mesh');
  ca.command('status')
    .description('what signs, what is trusted, and where a rotation stands; exit status 1 where something is wrong')
    .option('-o, --output <format>', 'text, wide, json or yaml', 'text')
    .action(async (options: { output: string }) => {
      const { caStatus } = await import('./commands/ca.ts');
      process.exitCode = await caStatus({ ...connection(), ...options });
    });
  ca.command('rotate')
    .description('replaces the root of the mesh, in three steps that cut nothing')
    .option('--rehearse', 'says what would happen and what stands in its way, and changes nothing', false)
    .option('--abort', 'calls a rotation off, as long as the old root signs', false)
    .action(async (options: { rehearse: boolean; abort: boolean }) => {
      const { rotate } = await import('./commands/ca.ts');
      process.exitCode = await rotate({ ...connection(), ...options });
    });

  program
    .command('version')
    .description('versions of this program, the control plane and the proxies')
    .option('--client', 'only of this program; asks no cluster', false)
    .option('-o, --output <format>', 'text, wide, json or yaml', 'text')
    .action(async (options: { client: boolean; output: string }) => {
      if (options.client && options.output === 'text') {
        // Without the cluster's libraries, so that it is there at once.
        const { VERSION } = await import('../common/base/version.ts');
        console.log(`client version: ${VERSION}`);
        return;
      }
      const { versionCommand } = await import('./commands/version.ts');
      process.exitCode = await versionCommand({ ...connection(), ...options });
    });
  addCompletion(program);
  return program;
}

/** Of what is known before the command, with a value. */
const REACHING = new Set(['-c', '--kubeconfig', '--context', '-i', '--istioNamespace']);
/** Of commands; kubectl and istioctl take them before the command, too. */
const MOVED = new Set(['-n', '--namespace', '-o', '--output']);

/** `-n shop top` as `top -n shop`. @param args without the program's name */
export function argumentsInOrder(args: readonly string[]): string[] {
  const [before, moved]: [string[], string[]] = [[], []];
  let i = 0;
  for (; i < args.length; i++) {
    const word = args[i] ?? '';
    const [flag = ''] = word.split('=', 1);
    const target = REACHING.has(flag) ? before : MOVED.has(flag) ? moved : undefined;
    if (!target) break;
    target.push(word);
    if (flag === word && i + 1 < args.length) target.push(args[++i] ?? '');
  }
  const rest = args.slice(i);
  // What comes after -- is no flag, so they go before that.
  const end = rest.indexOf('--');
  return [...before, ...(end < 0 ? [...rest, ...moved] : [...rest.slice(0, end), ...moved, ...rest.slice(end)])];
}
