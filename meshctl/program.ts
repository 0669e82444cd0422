/** What meshctl can be told: every command with its flags. Each is loaded only when it is called, so that `--help` and `version` start at once. */
import { Command } from 'commander';
import { CommandError } from './command-error.ts';
import { addAnalyze } from './commands/analyze.ts';
import { addBypass } from './commands/bypass.ts';
import { addCert } from './commands/certificates.ts';
import { addCompletion } from './commands/completion.ts';
import { addInstallation } from './commands/installation.ts';
import { addLive } from './commands/live.ts';
import { addOperations } from './commands/operations.ts';
import { addState } from './commands/state.ts';
import { addTruth } from './commands/truth.ts';
import type { Connection } from './terminal.ts';

/** @param env of the process: kubeconfigs are found by it */
export function createProgram(env: Readonly<Record<string, string | undefined>>): Command {
  const program = new Command('meshctl')
    .description('Drives a Warren mesh and tells the truth about it.')
    .option('--kubeconfig <file>', 'kubeconfig file (default: $KUBECONFIG, then ~/.kube/config)')
    .option('--context <name>', 'context of the kubeconfig')
    .option('-i, --istioNamespace <name>', 'namespace of the control plane', 'istio-system')
    .showHelpAfterError();
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
      .option('--timeout <seconds>', 'how long to wait for the pods', '60')
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

  const waypoint = program.command('waypoint').description('waypoints: the L7 proxies of a namespace');
  const inNamespace = ['-n, --namespace <name>', 'namespace', 'default'] as const;
  const name = ['--name <name>', 'name of the waypoint', 'waypoint'] as const;
  const traffic = ['--for <type>', 'what it serves: service, workload, all or none (default: service)'] as const;
  const revision = ['-r, --revision <name>', 'revision of the control plane'] as const;
  const everywhere = ['-A, --all-namespaces', 'of all namespaces', false] as const;

  waypoint
    .command('apply')
    .description('deploys a waypoint, or changes one')
    .option(...inNamespace)
    .option(...name)
    .option(...traffic)
    .option(...revision)
    .option('--enroll-namespace', 'binds the namespace to it, once it is ready', false)
    .option('--overwrite', 'even where the namespace is bound to another one', false)
    .option('-w, --wait', 'waits until it is ready', false)
    .option('--waypoint-timeout <seconds>', 'how long to wait', '90')
    .action(
      async (options: {
        namespace: string;
        name: string;
        for?: string;
        revision?: string;
        enrollNamespace: boolean;
        overwrite: boolean;
        wait: boolean;
        waypointTimeout: string;
      }) => {
        const { apply } = await import('./commands/waypoint.ts');
        const timeoutS = Number(options.waypointTimeout.replace(/s$/, ''));
        if (!(timeoutS > 0)) throw new CommandError(`--waypoint-timeout ${options.waypointTimeout}: expected seconds`);
        process.exitCode = await apply({ ...connection(), ...options, timeoutS });
      },
    );
  waypoint
    .command('generate')
    .description('prints the Gateway that apply would apply')
    .option(...inNamespace)
    .option(...name)
    .option(...traffic)
    .option(...revision)
    .action(async (options: { namespace: string; name: string; for?: string; revision?: string }) => {
      const { generate } = await import('./commands/waypoint.ts');
      process.exitCode = generate(options);
    });
  waypoint
    .command('list')
    .description('waypoints and whether they are programmed')
    .option(...inNamespace)
    .option(...everywhere)
    .action(async (options: { namespace: string; allNamespaces: boolean }) => {
      const { list } = await import('./commands/waypoint.ts');
      process.exitCode = await list({ ...connection(), ...options });
    });
  waypoint
    .command('status')
    .description('why a waypoint is ready, or is not; exit status 1 where one is not')
    .option(...inNamespace)
    .option(...everywhere)
    .action(async (options: { namespace: string; allNamespaces: boolean }) => {
      const { waypointStatus } = await import('./commands/waypoint.ts');
      process.exitCode = await waypointStatus({ ...connection(), ...options });
    });
  waypoint
    .command('delete [names...]')
    .description('removes waypoints, and says what is still bound to them')
    .option(...inNamespace)
    .option('--all', 'all of the namespace', false)
    .action(async (names: string[], options: { namespace: string; all: boolean }) => {
      const { remove } = await import('./commands/waypoint.ts');
      process.exitCode = await remove({ ...connection(), namespace: options.namespace, names, all: options.all });
    });

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
