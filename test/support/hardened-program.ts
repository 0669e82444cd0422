/** A process that is hardened as every component is, and then does what signals tell it. */
import { Worker } from 'node:worker_threads';
import { hardenProcess } from '../../common/linux/hardening.ts';

// In another thread, which begins after the filter.
const ATTEMPT = `const { spawnSync } = require('node:child_process'); console.log('a program', spawnSync('/bin/true').error?.code ?? 'was run');`;

hardenProcess({ env: process.env, execArgv: process.execArgv, keep: [] });
// Time enough for a debugger to say where it listens.
process.on('SIGUSR2', () => setTimeout(() => console.log('a second has passed'), 1000));
process.on('SIGHUP', () => new Worker(ATTEMPT, { eval: true }));
setInterval(() => undefined, 60_000);
console.log('hardened');
