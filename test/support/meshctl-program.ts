/**
 * Several of meshctl's commands in one process, one after the other, as main.ts runs one: argument lists as JSON on standard input, what each
 * printed and its exit status as JSON on standard output. Starting a process for each costs more than most of them do.
 */
import { readFileSync } from 'node:fs';
import { CommandError } from '../../meshctl/command-error.ts';
import { argumentsInOrder, createProgram } from '../../meshctl/program.ts';
import type { Ran } from './kube-commands.ts';

const results: Ran[] = [];
const say = process.stdout.write.bind(process.stdout);
for (const args of JSON.parse(readFileSync(0, 'utf8')) as string[][]) {
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    process[name].write = (chunk: string | Uint8Array) => {
      said[name] += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString();
      return true;
    };
  process.exitCode = 0;
  try {
    await createProgram(process.env).parseAsync(argumentsInOrder(args), { from: 'user' });
  } catch (error) {
    said.stderr += `${error instanceof CommandError ? error.message : String(error)}\n`;
    process.exitCode = 2;
  }
  results.push({ code: Number(process.exitCode), ...said });
}
process.exitCode = 0;
say(JSON.stringify(results));
