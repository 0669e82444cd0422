/** The commands install, upgrade, uninstall and check, as commander knows them. Each is loaded when it is called. */
import type { Command } from 'commander';
import type { Connection } from '../terminal.ts';
import type { CheckFlags } from './check.ts';
import type { InstallFlags, UninstallFlags } from './install.ts';

/** @param connection of the program's own flags, once they have been read */
export function addInstallation(program: Command, connection: () => Connection): void {
  const many = (value: string, before: string[]): string[] => [...before, value];
  for (const [name, description] of [
    ['install', 'installs the mesh: looks whether the cluster can take it, applies its objects, waits until they are ready'],
    ['upgrade', 'brings an installation to the version of this program: control plane, then node agent, then ztunnel'],
  ] as const) {
    program
      .command(name)
      .description(description)
      .option('-f, --values <file>', "values of the chart (several times, as Helm's); needs helm on the PATH", many, [])
      .option('--set <name=value>', 'one value of the chart; needs helm on the PATH', many, [])
      .option('--dry-run', 'says what would be done and what is in the way, and changes nothing', false)
      .option('--wait', 'waits until everything is ready', true)
      .option('--no-wait', 'returns when everything is applied')
      .option('--timeout <duration>', 'how long to wait for each step: 90, 90s, 5m', '5m')
      .option('--force-conflicts', 'takes over fields that somebody else has set', false)
      .option('-o, --output <format>', 'of --dry-run: text, wide, json or yaml', 'text')
      .addHelpText('after', '\nExit status: 0 done, 1 something is in the way or did not come up, 2 the cluster could not be asked.')
      .action(async (options: InstallFlags) => {
        const { installCommand } = await import('./install.ts');
        process.exitCode = await installCommand({ ...connection(), ...options, upgrade: name === 'upgrade' });
      });
  }
  program
    .command('uninstall')
    .description('removes the mesh: takes every pod out of it first, and leaves what users wrote')
    .option('-y, --skip-confirmation', 'does not ask', false)
    .option('--dry-run', 'says what would be deleted, and changes nothing', false)
    .option('--timeout <duration>', 'how long to wait for the pods of each piece', '5m')
    .option('--purge-gateways', 'deletes waypoint Gateways too', false)
    .option('--purge-labels', "takes the mesh's labels off namespaces and Services too", false)
    .option(
      '--purge-crds',
      "deletes the definitions of kinds that Warren made, Istio's and its own, and every object of these kinds",
      false,
    )
    .addHelpText('after', '\nExit status: 0 nothing is left, 1 something is that should not be, 2 the cluster could not be asked.')
    .action(async (options: UninstallFlags) => {
      const { uninstallCommand } = await import('./install.ts');
      process.exitCode = await uninstallCommand({ ...connection(), ...options });
    });
  program
    .command('check')
    .description('whether the installation is sound: pieces, versions, certificates, enrolled pods')
    .option('--pre', 'before an installation: whether this cluster can take it', false)
    .option('-f, --values <file>', 'with --pre: values of the chart', many, [])
    .option('--set <name=value>', 'with --pre: one value of the chart', many, [])
    .option('-o, --output <format>', 'text, wide, json or yaml', 'text')
    .addHelpText('after', '\nExit status: 0 no errors, 1 errors, 2 the cluster could not be asked.')
    .action(async (options: CheckFlags) => {
      const { checkCommand } = await import('./check.ts');
      process.exitCode = await checkCommand({ ...connection(), ...options });
    });
}
