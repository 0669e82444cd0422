/** ztunnel's entry: argv and environment to settings, run until a signal, drain, exit code. */
import { existsSync, readFileSync } from 'node:fs';
import { errorMessage } from '../common/base/errors.ts';
import { createLog } from '../common/base/log.ts';
import { SettingsError } from '../common/base/settings.ts';
import { VERSION } from '../common/base/version.ts';
import { hardenProcess } from '../common/linux/hardening.ts';
import { MESH_CONFIG_FILE } from './proxy-config.ts';
import { readZtunnelSettings } from './settings.ts';
import { startZtunnel } from './ztunnel.ts';

const USAGE = `Usage: ztunnel [proxy [ztunnel] | version | help]
  proxy    run (the default); everything else comes from the environment, see docs/config.md
  version  print the version
  help     print this
`;

async function main(argv: readonly string[]): Promise<number> {
  switch (argv[0]) {
    case undefined:
    case 'proxy':
      return run();
    case 'version':
      process.stdout.write(`version: ${VERSION}\n`);
      return 0;
    case 'help':
      process.stdout.write(USAGE);
      return 0;
    default:
      process.stderr.write(`ztunnel: unknown command ${JSON.stringify(argv[0])}\n${USAGE}`);
      return 1;
  }
}

async function run(): Promise<number> {
  hardenProcess({ env: process.env, execArgv: process.execArgv, keep: ['setns'] });
  const settings = readZtunnelSettings(process.env, existsSync(MESH_CONFIG_FILE) ? readFileSync(MESH_CONFIG_FILE, 'utf8') : undefined);
  const logs = createLog({ level: settings.log.level, format: settings.logFormat, scope: 'ztunnel' });
  // Until the end is asked for, something has to keep the process: timers of the clock do not.
  const alive = setInterval(() => undefined, 60_000);
  const { promise: stop, resolve: quit } = Promise.withResolvers<string>();
  let failed = false;
  process.once('SIGTERM', () => quit('SIGTERM'));
  process.once('SIGINT', () => {
    process.once('SIGINT', () => process.exit(130));
    quit('SIGINT');
  });
  try {
    const ztunnel = await startZtunnel(settings, logs, (problem) => {
      failed = problem !== undefined;
      quit(problem ?? 'quitquitquit');
    });
    logs.log.info({ reason: await stop }, 'asked to end');
    await ztunnel.drain();
    return failed ? 1 : 0;
  } catch (error) {
    logs.log.error({ error: errorMessage(error) }, 'ztunnel cannot start');
    return 1;
  } finally {
    clearInterval(alive);
    logs.writer.flushNow();
  }
}

main(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`ztunnel: ${error instanceof SettingsError ? error.message : errorMessage(error)}\n`);
    process.exit(1);
  },
);
