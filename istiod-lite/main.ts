/** `istiod discovery [flags]`: settings, then run until a signal, then an orderly end. */
import { systemClock } from '../common/base/clock.ts';
import { errorMessage } from '../common/base/errors.ts';
import { createLog } from '../common/base/log.ts';
import { readSettings } from '../common/base/settings.ts';
import { KubeApi } from '../common/client/kube-api.ts';
import { hardenProcess } from '../common/linux/hardening.ts';
import { startIstiod } from './istiod.ts';
import { settingsTable, withFlags } from './settings.ts';

try {
  hardenProcess({ env: process.env, execArgv: process.execArgv });
  const [command, ...flags] = process.argv.slice(2);
  if (command !== 'discovery') throw new Error(`expected the command discovery, got ${command ?? 'nothing'}`);
  const env = withFlags(process.env, flags);
  const settings = readSettings(settingsTable, env);
  const { log, writer } = createLog({ level: settings.logLevel, format: settings.logAsJson ? 'json' : 'text', scope: 'istiod' });
  const api = KubeApi.load({ env, ...(settings.kubeconfig && { kubeconfig: settings.kubeconfig }) });
  process.on('unhandledRejection', (reason) => log.error({ err: reason }, 'unhandled rejection'));
  const istiod = await startIstiod({ settings, api, clock: systemClock, random: Math.random, log });
  const signalled = await new Promise<string>((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => resolve(name));
  });
  log.info({ signal: signalled }, 'shutting down');
  await istiod.close();
  writer.flushNow();
  process.exit(0);
} catch (error) {
  process.stderr.write(`istiod: ${errorMessage(error)}\n`);
  process.exit(1);
}
