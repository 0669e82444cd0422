/** `analyze` as commander knows it: istioctl's flags. The analysis itself is loaded when it is called. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { AnalyzeFlags } from '../analyze/command.ts';
import type { Connection } from '../terminal.ts';

const USAGE = 64;

/** @param connection of the program's own flags, once they have been read */
export function addAnalyze(program: Command, connection: () => Connection): void {
  // `-k shop.yaml`: what stands after a flag of yes and no, and is neither, is a file.
  const strays: string[] = [];
  const isTrue = (value: string): boolean => {
    if (!/^(?:t|true|1|yes|f|false|0|no)$/i.test(value)) strays.push(value);
    return !/^(?:f|false|0|no)$/i.test(value);
  };
  const several = (value: string, before: string[]): string[] => [...before, value];
  program
    .command('analyze [files...]')
    .description('what is wrong with the configuration of the mesh, in files, in a cluster, or in a cluster as it would be with the files')
    .option('-k, --use-kube [bool]', 'look at the live cluster too; --use-kube=false looks at files alone', isTrue, true)
    .option('-n, --namespace <name>', 'of which objects are told of, and of objects in files that name none')
    .option('-A, --all-namespaces', 'objects of all namespaces', false)
    .option('-o, --output <format>', 'log, json or yaml', 'log')
    .option('--failure-threshold <level>', 'the level from which on the exit status is 79: Info, Warning or Error', 'Error')
    .option('--output-threshold <level>', 'the level from which on messages are shown', 'Info')
    .option(
      '-S, --suppress <code=resource>',
      'no message of this code about "KIND NAME.NAMESPACE", * for anything (several times)',
      several,
      [],
    )
    .option('--analyzer <name>', 'only this analyzer (several times)', several, [])
    .option('-L, --list-analyzers', 'lists the analyzers and does nothing else', false)
    .option('-R, --recursive', 'nothing: folders are read with all that is below them', false)
    .option('--ignore-unknown', 'documents that are no objects of Kubernetes are no error', false)
    .option('-r, --revision <name>', 'objects of this revision of the control plane, and of none', 'default')
    .option('--meshConfigFile <file>', "Istio's MeshConfig: rootNamespace and trustDomain are read")
    .option('--timeout <duration>', 'how long the cluster may take to answer', '30s')
    .option('--color [bool]', 'colours on a terminal', isTrue, true)
    .option('-v, --verbose', 'says how much was looked at', false)
    .addHelpText(
      'after',
      '\nFILES are files, folders, and - for standard input.\nExit status: 0 nothing from the failure threshold on (and always with -o json and yaml), 79 issues, 64 wrong flags,\n65 a file that cannot be read as YAML or JSON, 1 anything else. The codes are explained in docs/analyze.md.',
    )
    .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : USAGE))
    .action(async (files: string[], flags: AnalyzeFlags) => {
      const [{ analyzeCommand }, { inColour }] = await Promise.all([import('../analyze/command.ts'), import('../terminal.ts')]);
      process.exitCode = await analyzeCommand([...strays, ...files], flags, connection(), {
        isTerminal: inColour(),
        stdin: () => readFileSync(0, 'utf8'),
        out: (text) => console.log(text),
        err: (text) => console.error(text),
      });
    });
}
