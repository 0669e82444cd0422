/** `istiod discovery [flags]`: settings, then run until a signal, then an orderly end; `istiod enroll --host=NAME …` prints a host's token. */
import { systemClock } from '../common/base/clock.ts';
import { errorMessage } from '../common/base/errors.ts';
import { createLog } from '../common/base/log.ts';
import { readSettings } from '../common/base/settings.ts';
import { hardenProcess } from '../common/linux/hardening.ts';
import { enroll } from './files/enroll.ts';
import { openCluster } from './files/open-cluster.ts';
import { startIstiod } from './istiod.ts';
import { settingsTable, withFlags } from './settings.ts';

try {
  hardenProcess({ env: process.env, execArgv: process.execArgv, keep: [] });
  const [command, ...flags] = process.argv.slice(2);
  if (command === 'enroll') {
    process.stdout.write(`${enroll(flags, process.env, systemClock.now())}\n`);
    process.exit(0);
  }
  if (command !== 'discovery') throw new Error(`expected the command discovery or enroll, got ${command ?? 'nothing'}`);
  const env = withFlags(process.env, flags);
  const settings = readSettings(settingsTable, env);
  const { log, writer } = createLog({ level: settings.logLevel, format: settings.logAsJson ? 'json' : 'text', scope: 'istiod' });
  const api = openCluster(settings, env, systemClock, log);
  process.on('unhandledRejection', (reason) => log.error({ err: reason }, 'unhandled rejection'));
  // Before anything waits: as process 1 of a container, a signal that nobody listens to is lost.
  const signalled = new Promise<string>((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => resolve(name));
  });
  // While the API server is away nothing else keeps the process: timers of the clock do not.
  setInterval(() => undefined, 60_000);
  const starting = startIstiod({ settings, api, clock: systemClock, random: Math.random, log });
  const istiod = await Promise.race([starting, signalled]);
  log.info({ signal: await signalled }, 'shutting down');
  if (typeof istiod !== 'string') await istiod.close();
  writer.flushNow();
  process.exit(0);
} catch (error) {
  process.stderr.write(`istiod: ${errorMessage(error)}\n`);
  process.exit(1);
}
