/** `top`, `tap`, `edges` and `authz`, as commander knows them. Each is loaded when it is called. */
import type { Command } from 'commander';
import { namespaceOf, type Placed } from '../namespace.ts';
import type { Connection } from '../terminal.ts';
import type { AuthzOptions } from './authz.ts';
import type { EdgesOptions } from './edges.ts';
import type { TapOptions } from './tap.ts';
import type { TopOptions } from './top.ts';

const FORMATS = ['-o, --output <format>', 'text, wide, json or yaml', 'text'] as const;

/** @param connection of the program's own flags, once they have been read */
export function addLive(program: Command, connection: () => Connection): void {
  const placed = async ({ namespace }: { readonly namespace?: string }) => ({ namespace: await namespaceOf(connection(), namespace) });
  program
    .command('top')
    .description(
      'services and who calls them: rate, success, latency, bytes, mutual TLS, from the counters of the proxies; refreshed on a terminal',
    )
    .option('-n, --namespace <name>', 'only what starts or ends in this namespace')
    .option('--window <duration>', 'what each figure is measured over', '2s')
    .option('--once', 'one window, and the end', false)
    .option(...FORMATS)
    .addHelpText(
      'after',
      `
Success is the share of requests that were not answered with 5xx (gRPC: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL,
UNAVAILABLE, DATA_LOSS), and of connections that did not fail. Latency of requests is the waypoint's, from their
head to the end of the response; where no waypoint is on the way there are only connections, and their latency
is how long the caller waited until one stood. Both come from histograms, so they lie within a bucket's bounds.`,
    )
    .action(async (options: Omit<TopOptions, keyof Connection>) => {
      const { topCommand } = await import('./top.ts');
      process.exitCode = await topCommand({ ...connection(), ...options });
    });
  program
    .command('tap [subject]')
    .description('connections and requests as they happen, as ztunnels and waypoints see them')
    .option('-n, --namespace <name>', "namespace of names that have none (default: the context's)")
    .option('--from <name>', 'only from this pod, workload or service')
    .option('--to <name>', 'only to this pod, workload or service')
    .option('--port <port>', 'only to this port')
    .option('--method <method>', 'only requests with this method')
    .option('--path <prefix>', 'only requests to paths that begin so')
    .option('--status <status>', 'only requests answered with this: 404, or 5xx')
    .option('--outcome <outcome>', 'ok, refused, failed, or a code such as POLICY_DENIED')
    .option('--max-rate <n>', 'events a second of one proxy; more are left out, and counted', '100')
    .option('--max <n>', 'ends after so many events')
    .option('--duration <duration>', 'ends after this time', '1h')
    .option('-o, --output <format>', 'text, wide, or json: one object a line', 'text')
    .addHelpText(
      'after',
      `
SUBJECT is a pod, workload or service at either end: NAME, NAMESPACE/NAME, or NAMESPACE/ for all of one.
AT is who saw it: out is the caller's ztunnel, in the called pod's, wp a waypoint.
Proxies make events only while somebody taps. Paths come without their query; there are no headers and no payload.`,
    )
    .action(async (subject: string | undefined, options: Placed<Omit<TapOptions, keyof Connection | 'subject'>>) => {
      const { tapCommand } = await import('./tap.ts');
      process.exitCode = await tapCommand({ ...connection(), ...options, ...(await placed(options)), subject });
    });
  program
    .command('edges')
    .description('who talks to whom: identities, and whether by mutual TLS, or why not')
    .option('-n, --namespace <name>', 'only what starts or ends in this namespace')
    .option(...FORMATS)
    .action(async (options: Omit<EdgesOptions, keyof Connection>) => {
      const { edgesCommand } = await import('./edges.ts');
      process.exitCode = await edgesCommand({ ...connection(), ...options });
    });
  program
    .command('authz <pod>')
    .description('every policy that applies to a pod, where it is enforced and what it would do, as the proxies have it')
    .option('-n, --namespace <name>', "namespace of the pod (default: the context's)")
    .option(...FORMATS)
    .addHelpText('after', '\nPOD is POD or NAMESPACE/POD.')
    .action(async (pod: string, options: Placed<Omit<AuthzOptions, keyof Connection | 'pod'>>) => {
      const { authzCommand } = await import('./authz.ts');
      process.exitCode = await authzCommand({ ...connection(), ...options, ...(await placed(options)), pod });
    });
}
