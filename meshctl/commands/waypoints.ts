/** `waypoint …`, as commander knows it: istioctl's names, flags and short forms. What the commands do is loaded when one is called. */
import { type Command, Option } from 'commander';
import { placed } from '../namespace.ts';
import type { Connection } from '../terminal.ts';
import type { ApplyFlags, DeleteFlags, GatewayFlags, ListFlags, StatusFlags } from './waypoint.ts';

/** @param connection of the program's own flags, once they have been read */
export function addWaypoint(program: Command, connection: () => Connection): void {
  const inNamespace = ['-n, --namespace <name>', "namespace (default: the context's)"] as const;
  const traffic = ['--for <type>', 'traffic that it serves: service, workload, all or none (default: service)'] as const;
  const revision = ['-r, --revision <name>', 'revision of the control plane that it is labelled with'] as const;
  const everywhere = ['-A, --all-namespaces', 'of all namespaces', false] as const;
  const only = ['--name <name>', 'only the one of this name'] as const;
  const timeout = ['--waypoint-timeout <duration>', 'how long to wait: 90s, 2m', '90s'] as const;
  const format = ['-o, --output <format>', 'text, wide, json or yaml', 'text'] as const;
  const isTrue = (value: string): boolean => !/^(?:f|false|0)$/i.test(value);
  const load = () => import('./waypoint.ts');

  const waypoint = program.command('waypoint').description('waypoints: the L7 proxies of a namespace');
  waypoint
    .command('apply')
    .description('deploys a waypoint, or changes one')
    .option(...inNamespace)
    .option('--name <name>', 'name of the waypoint', 'waypoint')
    .option(...traffic)
    .option(...revision)
    .option('--enroll-namespace', 'binds the namespace to it, once it is ready', false)
    .option('--overwrite', 'even where the namespace is bound to another one', false)
    .option('-w, --wait [bool]', 'waits until it is ready', isTrue, false)
    .option(...timeout)
    .addHelpText('after', '\nExit status: 0 applied (and ready, with --wait), 1 it did not become ready, 2 the cluster could not be asked.')
    .action(async (flags: ApplyFlags) => {
      const { apply } = await load();
      process.exitCode = await apply({ ...flags, ...(await placed(connection(), flags)) });
    });
  waypoint
    .command('generate')
    .description('prints the Gateway that apply would apply')
    .option('-n, --namespace <name>', 'namespace (default: none, for whoever applies it to say)')
    .option('--name <name>', 'name of the waypoint', 'waypoint')
    .option(...traffic)
    .option(...revision)
    .action(async (flags: GatewayFlags) => {
      const { generate } = await load();
      process.exitCode = generate(flags);
    });
  waypoint
    .command('list')
    .description('waypoints, what they serve and whether they are programmed')
    .option(...inNamespace)
    .option(...everywhere)
    .option(...only)
    .option(...format)
    .addHelpText('after', '\nTRAFFIC TYPE is what the waypoint serves: a Gateway without the label istio.io/waypoint-for serves services.')
    .action(async (flags: ListFlags) => {
      const { list } = await load();
      process.exitCode = await list({ ...flags, ...(await placed(connection(), flags)) });
    });
  waypoint
    .command('status')
    .description('waits until waypoints are ready, and says why one is not')
    .option(...inNamespace)
    .option(...everywhere)
    .option(...only)
    .option('-w, --wait [bool]', 'waits until they are ready; --wait=false (or --no-wait) shows what is now', isTrue, true)
    .addOption(new Option('--no-wait').hideHelp())
    .option(...timeout)
    .option(...format)
    .addHelpText('after', '\nExit status: 0 all are ready, 1 one is not, 2 the cluster could not be asked.')
    .action(async (flags: StatusFlags) => {
      const { waypointStatus } = await load();
      process.exitCode = await waypointStatus({ ...flags, ...(await placed(connection(), flags)) });
    });
  waypoint
    .command('delete [names...]')
    .description('removes waypoints, and says what is still bound to them')
    .option(...inNamespace)
    .option('--all', 'all of the namespace', false)
    .option('-r, --revision <name>', 'those of this revision')
    .addHelpText('after', '\nExit status: 0 they are gone, 1 one was not there, 2 the cluster could not be asked.')
    .action(async (names: string[], flags: DeleteFlags) => {
      const { remove } = await load();
      process.exitCode = await remove({ ...flags, ...(await placed(connection(), flags)), names });
    });
}
