/** `rehearse` and `policy suggest`, as commander knows them. Each is loaded when it is called. */
import type { Command } from 'commander';
import { type Placed, placed } from '../namespace.ts';
import type { Connection } from '../terminal.ts';
import type { RehearseOptions } from './rehearse.ts';
import type { SuggestOptions } from './suggest.ts';

const several = (value: string, before: string[]): string[] => [...before, value];

/** @param connection of the program's own flags, once they have been read */
export function addTruth(program: Command, connection: () => Connection): void {
  program
    .command('rehearse [file...]')
    .description('which of the decisions that proxies made lately would change, if these objects were applied; changes nothing')
    .option('--delete <kind/name>', 'an object that would be deleted: KIND/NAME or KIND/NAMESPACE/NAME (several times)', several, [])
    .option('--since <duration>', 'how far back: 15m, 1h, 2d', '1h')
    .option('-n, --namespace <name>', "of objects that name none (default: the context's)")
    .option('-o, --output <format>', 'text, wide, json or yaml', 'text')
    .addHelpText(
      'after',
      '\nFILE is YAML or JSON, - the standard input.\nExit status: 0 nothing that was seen would change, 1 something would, 2 it could not be asked,\n3 nothing is known to change, and of some decisions it cannot be said: what a rule asks for was not recorded.',
    )
    .action(async (files: string[], options: Placed<Omit<RehearseOptions, keyof Connection | 'files'>>) => {
      const { rehearseCommand } = await import('./rehearse.ts');
      process.exitCode = await rehearseCommand({ ...options, ...(await placed(connection(), options)), files });
    });
  const policy = program.command('policy').description('authorization policies');
  policy
    .command('suggest')
    .description('the least authorization policies that allow what was seen, as YAML with what they stand on; applies nothing')
    .option('-n, --namespace <name>', "namespace that is to be protected (default: the context's)")
    .option('--since <duration>', 'how far back: 15m, 1h, 2d', '1d')
    .option('--open', 'leaves pods that nobody called as they are, instead of closing them', false)
    .addHelpText('after', '\nExit status: 0 policies are suggested, 1 nothing was seen, 2 the cluster could not be asked.')
    .action(async (options: Placed<Omit<SuggestOptions, keyof Connection>>) => {
      const { suggestCommand } = await import('./suggest.ts');
      process.exitCode = await suggestCommand({ ...options, ...(await placed(connection(), options)) });
    });
}
