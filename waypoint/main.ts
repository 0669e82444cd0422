/** A waypoint's entry: argv and environment to settings, run until a signal, drain, exit code. */
import { errorMessage } from '../common/base/errors.ts';
import { createLog } from '../common/base/log.ts';
import { boundBacktracking } from '../common/base/regex-engine.ts';
import { SettingsError } from '../common/base/settings.ts';
import { VERSION } from '../common/base/version.ts';
import { hardenProcess } from '../common/linux/hardening.ts';
import { readWaypointSettings } from './settings.ts';
import { startWaypoint } from './waypoint.ts';

const USAGE = `Usage: waypoint [proxy [waypoint] | version | help]
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
      process.stderr.write(`waypoint: unknown command ${JSON.stringify(argv[0])}\n${USAGE}`);
      return 1;
  }
}

async function run(): Promise<number> {
  hardenProcess({ env: process.env, execArgv: process.execArgv, keep: [] });
  boundBacktracking();
  const settings = readWaypointSettings(process.env);
  const logs = createLog({ level: settings.log.level, format: settings.logFormat, scope: 'waypoint' });
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
    const waypoint = await startWaypoint(settings, logs, (problem) => {
      failed = problem !== undefined;
      quit(problem ?? 'quitquitquit');
    });
    logs.log.info({ reason: await stop }, 'asked to end');
    await waypoint.drain();
    return failed ? 1 : 0;
  } catch (error) {
    logs.log.error({ error: errorMessage(error) }, 'waypoint cannot start');
    return 1;
  } finally {
    clearInterval(alive);
    logs.writer.flushNow();
  }
}

main(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`waypoint: ${error instanceof SettingsError ? error.message : errorMessage(error)}\n`);
    process.exit(1);
  },
);
