/** A process that is hardened as every component is, and then waits for signals. */
import { hardenProcess } from '../../common/linux/hardening.ts';

hardenProcess({ env: process.env, execArgv: process.execArgv });
// Time enough for a debugger to say where it listens.
process.on('SIGUSR2', () => setTimeout(() => console.log('a second has passed'), 1000));
console.log('hardened');
setInterval(() => undefined, 60_000);
