/**
 * Several of meshctl's commands in one process, one after the other, as main.ts runs one: an argument list as JSON on each line of standard input, what
 * it printed and its exit status as JSON on a line of standard output. Starting a process for each costs more than most of them do.
 */
import { createInterface } from 'node:readline';
import { CommandError } from '../../meshctl/command-error.ts';
import { argumentsInOrder, createProgram } from '../../meshctl/program.ts';
import type { Ran } from './kube-commands.ts';

const say = process.stdout.write.bind(process.stdout);

async function run(args: readonly string[]): Promise<Ran> {
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    process[name].write = (chunk: string | Uint8Array) => {
      said[name] += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString();
      return true;
    };
  process.exitCode = 0;
  try {
    await createProgram(process.env).parseAsync(argumentsInOrder([...args]), { from: 'user' });
  } catch (error) {
    said.stderr += `${error instanceof CommandError ? error.message : String(error)}\n`;
    process.exitCode = 2;
  }
  return { code: Number(process.exitCode), ...said };
}

for await (const line of createInterface({ input: process.stdin })) {
  const ran = await run(JSON.parse(line) as string[]);
  process.exitCode = 0;
  say(`${JSON.stringify(ran)}\n`);
}
