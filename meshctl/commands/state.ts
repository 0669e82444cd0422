/** `explain`, `coverage`, `ztunnel-config` and `proxy-status`, as commander knows them: istioctl's names, flags and short forms. Each is loaded when it is called. */
import type { Command } from 'commander';
import { type Placed, placed } from '../namespace.ts';
import type { Connection } from '../terminal.ts';
import type { ExplainOptions } from './explain.ts';
import type { WaypointConfigOptions } from './waypoint-config.ts';
import type { ZtunnelConfigOptions } from './ztunnel-config.ts';

type ExplainFlags = Placed<Pick<ExplainOptions, 'namespace' | 'output' | 'method' | 'path' | 'header' | 'diff'>>;
type Flags = Placed<Omit<ZtunnelConfigOptions, keyof Connection | 'table' | 'proxy'>>;
type WaypointFlags = Placed<Omit<WaypointConfigOptions, keyof Connection | 'table' | 'waypoint'>>;
type Row = readonly [
  table: ZtunnelConfigOptions['table'],
  aliases: readonly string[],
  doc: string,
  flags: readonly (readonly [flag: string, doc: string])[],
];

const COVERAGE_HELP = `
RULE is where the rule stands in the object's spec. ENFORCED is
  node       by the ztunnels of the pods that it is for
  waypoint   by waypoints
  in part    not for all that it is for, or not as it is written
  nowhere    by nobody
  elsewhere  by another controller: it is not the mesh's
Exit status: 0 all are enforced, 1 one is not or not wholly, 2 the cluster could not be asked.`;

const TABLES: readonly Row[] = [
  [
    'workload',
    ['w', 'workloads'],
    'workloads that it knows',
    [
      ['--workload-namespace <name>', 'only of this namespace'],
      ['--address <ip>', 'only with this address'],
      ['--workload-node <name>', 'only on this node'],
    ],
  ],
  [
    'service',
    ['svc', 'services'],
    'services that it knows, with their healthy and all endpoints',
    [['--service-namespace <name>', 'only of this namespace']],
  ],
  ['policy', ['pol', 'policies'], 'L4 policies that it knows', [['--policy-namespace <name>', 'only of this namespace']]],
  ['certificate', ['cert', 'certs', 'certificates'], 'certificates that it holds', []],
  [
    'connections',
    ['cons'],
    'connections that it carries',
    [
      ['--workload-namespace <name>', 'only of pods of this namespace'],
      ['--direction <way>', 'inbound or outbound'],
      ['--raw', 'addresses instead of names'],
    ],
  ],
  ['all', ['a'], 'all of these', [['--with-headers', 'a title over each table']]],
];

const podNamespace = ['-n, --namespace <name>', "namespace of a POD that names none (default: the context's)"] as const;

const WAYPOINT_TABLES = [
  ['routes', ['route', 'r'], 'routes of its services, in the order in which they are tried'],
  ['clusters', ['cluster', 'c'], 'services that it serves or sends to, and how'],
  ['endpoints', ['endpoint', 'ep'], 'where their requests go'],
  ['policies', ['policy', 'pol'], 'L7 policies, what they hold for and what they do'],
  ['secrets', ['secret', 's'], 'its certificates; keys are never shown'],
] as const;

/** @param connection of the program's own flags, once they have been read */
export function addState(program: Command, connection: () => Connection): void {
  program
    .command('explain <pod-or-id> [destination]')
    .description(
      'what would become of a connection, every decision on its way and the rule that decided; or, of an id in the access log, what became of it',
    )
    .option('-n, --namespace <name>', "namespace of the pod (default: the context's)")
    .option('--method <method>', 'of a request that a waypoint on the way would see', 'GET')
    .option('--path <path>', 'of the request, with its query', '/')
    .option('--diff <file>', 'what these objects would change about it, if they were applied')
    .option('-H, --header <name:value>', 'of the request (several times)', (value: string, before: string[]) => [...before, value], [])
    .option(
      '--token <token>',
      "an end user's token of the request, as `authorization: Bearer`: the token itself, @FILE, or - for the standard input",
    )
    .option('-o, --output <format>', 'text, wide, json or yaml', 'text')
    .addHelpText(
      'after',
      '\nPOD is POD or NAMESPACE/POD; DESTINATION is HOST or HOST:PORT (80), a name as the pod would write it, or an address.\nAn ID alone is of a connection or request that has ended: the `id` in the access logs, or in x-warren-refusal.\nExit status: 0 delivered, 1 refused (or on some of the ways), 2 it could not be asked, 3 nothing refuses it here,\nand it cannot be said what becomes of it: an authorization server is asked, or it leaves for another network.',
    )
    .action(async (pod: string, destination: string | undefined, options: ExplainFlags) => {
      const { explainCommand } = await import('./explain.ts');
      process.exitCode = await explainCommand({ ...options, ...(await placed(connection(), options)), pod, destination });
    });
  program
    .command('coverage')
    .description('where each rule of policies, routes and settings is enforced: at nodes, at waypoints, in part or nowhere, and why')
    .option('-n, --namespace <name>', 'only objects of this namespace')
    .option('-o, --output <format>', 'text, wide, json or yaml', 'text')
    .addHelpText('after', COVERAGE_HELP)
    .action(async (options: { namespace?: string; output: string }) => {
      const { coverageCommand } = await import('./coverage.ts');
      process.exitCode = await coverageCommand({ ...connection(), ...options });
    });
  const config = program.command('ztunnel-config').alias('zc').description('what a ztunnel knows, holds and carries, asked of itself');
  for (const [table, aliases, doc, flags] of TABLES) {
    const command = config
      .command(`${table} [ztunnel]`)
      .aliases([...aliases])
      .description(doc)
      .option(...podNamespace)
      .option('--node <name>', 'the ztunnel of this node')
      .option('-f, --file <file>', 'a saved configuration dump instead of a running ztunnel')
      .option('-o, --output <format>', 'short, wide, json or yaml', 'short')
      .addHelpText('after', '\nZTUNNEL is POD or POD.NAMESPACE of a ztunnel, or of any pod: then it is the ztunnel of its node.');
    for (const [flag, about] of flags) command.option(flag, about);
    command.action(async (proxy: string | undefined, options: Flags) => {
      const { ztunnelConfig } = await import('./ztunnel-config.ts');
      process.exitCode = await ztunnelConfig({ ...options, ...(await placed(connection(), options)), table, proxy });
    });
  }
  config
    .command('log [ztunnel]')
    .alias('o')
    .description('shows or sets log levels of a ztunnel, or of all')
    .option(...podNamespace)
    .option('--node <name>', 'the ztunnel of this node')
    .option('--level <levels>', 'LEVEL or SCOPE:LEVEL, several with commas')
    .option('-r, --reset', 'back to the levels of the start', false)
    .action(async (proxy: string | undefined, options: { namespace?: string; node?: string; level?: string; reset: boolean }) => {
      const { ztunnelLog } = await import('./ztunnel-config.ts');
      process.exitCode = await ztunnelLog({ ...options, ...(await placed(connection(), options)), proxy });
    });
  const waypoint = program.command('waypoint-config').alias('wc').description('what a waypoint knows, enforces and holds, asked of itself');
  for (const [table, aliases, doc] of WAYPOINT_TABLES) {
    waypoint
      .command(`${table} [waypoint]`)
      .aliases([...aliases])
      .description(doc)
      .option('-n, --namespace <name>', "namespace of the waypoint (default: the context's)")
      .option('-f, --file <file>', 'a saved configuration dump instead of a running waypoint')
      .option('-o, --output <format>', 'short, wide, json or yaml', 'short')
      .addHelpText('after', '\nWAYPOINT is NAME or NAMESPACE/NAME, of its Gateway or of one of its pods; any waypoint where none is named.')
      .action(async (name: string | undefined, options: WaypointFlags) => {
        const { waypointConfig } = await import('./waypoint-config.ts');
        process.exitCode = await waypointConfig({ ...options, ...(await placed(connection(), options)), table, waypoint: name });
      });
  }
  program
    .command('proxy-status')
    .alias('ps')
    .description('which proxies are connected to which istiod, and whether they have taken what they were sent')
    .option('-n, --namespace <name>', 'only proxies of this namespace')
    .option('-o, --output <format>', 'table, wide, json or yaml', 'table')
    .action(async (options: { namespace?: string; output: string }) => {
      const { proxyStatus } = await import('./proxy-status.ts');
      process.exitCode = await proxyStatus({ ...connection(), ...options });
    });
}
