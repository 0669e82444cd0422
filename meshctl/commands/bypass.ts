/** The commands of `meshctl bypass`. */
import type { Command } from 'commander';
import type { Scope } from '../bypass/scope.ts';
import type { Connection } from '../terminal.ts';

interface Flags {
  readonly undo: boolean;
  readonly wait: boolean;
  readonly timeout: string;
}

export function addBypass(program: Command, connection: () => Connection): void {
  const group = program
    .command('bypass')
    .description('takes the mesh out of the path of pods for now, without restarting them, and brings it back')
    .addHelpText(
      'after',
      '\nWhere the API server or the node agent cannot be reached, on the node itself: /opt/cni/bin/istio-cni bypass [--undo]',
    );
  const run = async (scope: Scope, flags: Flags): Promise<void> => {
    const { bypass } = await import('../bypass/bypass.ts');
    process.exitCode = await bypass({ ...connection(), scope, undo: flags.undo, wait: flags.wait, timeout: flags.timeout });
  };
  const withFlags = (command: Command): Command =>
    command
      .option('--undo', 'back into the mesh', false)
      .option('--no-wait', 'return at once')
      .option('--timeout <duration>', 'how long to wait for the pods: 30, 30s, 2m', '30s');
  withFlags(group.command('node <name>').description('all pods of a node, also those that come')).action((name: string, flags: Flags) =>
    run({ kind: 'node', name }, flags),
  );
  withFlags(group.command('namespace <name>').description('all pods of a namespace')).action((name: string, flags: Flags) =>
    run({ kind: 'namespace', name }, flags),
  );
  withFlags(group.command('cluster').description('every pod')).action((flags: Flags) =>
    run({ kind: 'cluster', systemNamespace: connection().systemNamespace }, flags),
  );
}
