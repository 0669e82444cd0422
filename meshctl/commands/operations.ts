/** `bug-report`, `manifest` and `playground`, as commander knows them. Each is loaded when it is called. */
import type { Command } from 'commander';
import type { Connection } from '../terminal.ts';
import type { BugReportOptions } from './bug-report.ts';
import type { ManifestOptions } from './manifest.ts';

const SCENARIOS = ['canary', 'deny', 'kill-ztunnel', 'rotate-root', 'lose-control-plane'];

/** @param connection of the program's own flags, once they have been read */
export function addOperations(program: Command, connection: () => Connection): void {
  const many = (value: string, before: string[] = []): string[] => [...before, value];
  program
    .command('bug-report')
    .description('an archive with what is needed to find out what is wrong: status, objects, events, logs, dumps; secrets taken out')
    .option('-f, --file <file>', 'the archive (default: warren-bug-report.tar.gz)')
    .option('-n, --namespace <name>', "objects of this namespace only, beside the mesh's own (several times)", many)
    .option('--log-lines <n>', 'of each container of the mesh', '5000')
    .option('--max-size <MiB>', 'before compression; what is more is left out, and said', '256')
    .option('--timeout <duration>', 'for all of it; what is not there by then is left out, and said', '3m')
    .addHelpText('after', '\nExit status: 0 whole, 1 something is missing (summary.txt says what), 2 the cluster could not be asked.')
    .action(async (options: Omit<BugReportOptions, keyof Connection>) => {
      const { bugReport } = await import('./bug-report.ts');
      process.exitCode = await bugReport({ ...connection(), ...options });
    });
  program
    .command('manifest')
    .description('what an installation consists of')
    .command('generate')
    .description('prints the objects that install would apply')
    .option('-f, --values <file>', "values of the chart (several times, as Helm's); needs helm on the PATH", many, [])
    .option('--set <name=value>', 'one value of the chart; needs helm on the PATH', many, [])
    .option('--crds', "with the definitions of Istio's kinds", false)
    .option('-o, --directory <folder>', 'one file for each object, in their order, instead of one text')
    .action(async (options: Omit<ManifestOptions, keyof Connection>) => {
      const { manifestGenerate } = await import('./manifest.ts');
      process.exitCode = manifestGenerate({ ...connection(), ...options });
    });
  const playground = program
    .command('playground')
    .description('a cluster on this machine to try things in: real proxies, nothing left behind');
  const run = async (of: 'playground' | 'scenario', args: readonly string[]): Promise<void> => {
    const { runPlayground } = await import('./playground.ts');
    process.exitCode = await runPlayground(of, args);
  };
  playground
    .command('up')
    .description('starts one, and stays until Ctrl-C')
    .option('--name <name>', 'several may run, under different names', 'warren')
    .option('--nodes <n>', 'nodes', '2')
    .option('--no-mesh', 'without the mesh')
    .action(async ({ name, nodes, mesh }: { name: string; nodes: string; mesh: boolean }) => {
      const { kubeconfig } = connection();
      await run('playground', [
        'up',
        ...['--name', name, '--nodes', nodes],
        ...(mesh ? ['--mesh'] : []),
        ...(kubeconfig === undefined ? [] : ['--kubeconfig', kubeconfig]),
      ]);
    });
  playground
    .command('down')
    .description('ends one')
    .option('--name <name>', 'which', 'warren')
    .action(async ({ name }: { name: string }) => run('playground', ['down', '--name', name]));
  playground
    .command('list')
    .description('those that run')
    .action(async () => run('playground', ['list']));
  playground
    .command('scenario [scenarios...]')
    .description(`acts things out, checks what it says at every step, and ends: ${SCENARIOS.join(', ')}, or all`)
    .option('--name <name>', 'of a playground that runs, instead of one of its own')
    .option('--keep', 'leaves its own playground running, until Ctrl-C', false)
    .addHelpText('after', '\nWithout SCENARIOS: what there is. Exit status: 0 everything was as it said, 1 it was not.')
    .action(async (scenarios: string[], { name, keep }: { name?: string; keep: boolean }) =>
      run('scenario', [...scenarios, ...(name === undefined ? [] : ['--name', name]), ...(keep ? ['--keep'] : [])]),
    );
}
