/** meshctl: argv → command → exit code. */

import { CommandError } from './command-error.ts';
import { argumentsInOrder, createProgram } from './program.ts';

// As process 1 of a container, a signal that nobody listens to is lost.
for (const [signal, number] of Object.entries({ SIGINT: 2, SIGTERM: 15 })) process.once(signal, () => process.exit(128 + number));

// `meshctl … | head` is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(process.exitCode);
});

try {
  await createProgram(process.env).parseAsync(argumentsInOrder(process.argv.slice(2)), { from: 'user' });
} catch (error) {
  // One line with the mend; a stack only where the program itself is at fault.
  if (error instanceof CommandError) console.error(`meshctl: ${error.message}`);
  else console.error('meshctl: ', error);
  process.exitCode = 2;
}
