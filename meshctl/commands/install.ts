/** `meshctl install`, `upgrade` and `uninstall`: flags in, the work of meshctl/install, exit status out. */
import { createInterface } from 'node:readline/promises';
import { systemClock } from '../../common/base/clock.ts';
import { duration } from '../../common/base/settings.ts';
import { CommandError } from '../command-error.ts';
import { runInstall } from '../install/install.ts';
import { loadSource } from '../install/source.ts';
import { runUninstall } from '../install/uninstall.ts';
import { withApi } from '../session.ts';
import { type Connection, checkFormat, inColour, print } from '../terminal.ts';

export interface InstallFlags {
  readonly values: readonly string[];
  readonly set: readonly string[];
  readonly dryRun: boolean;
  readonly wait: boolean;
  readonly timeout: string;
  readonly forceConflicts: boolean;
  readonly output: string;
}

export interface UninstallFlags {
  readonly skipConfirmation: boolean;
  readonly dryRun: boolean;
  readonly timeout: string;
  readonly purgeGateways: boolean;
  readonly purgeLabels: boolean;
  readonly purgeCrds: boolean;
}

export async function installCommand(options: Connection & InstallFlags & { readonly upgrade: boolean }): Promise<number> {
  const { systemNamespace: namespace, values, set, env, output } = options;
  checkFormat(output);
  const asData = output === 'json' || output === 'yaml';
  if (asData && !options.dryRun) throw new CommandError(`-o ${output} is for --dry-run`);
  const timeoutMs = timeoutOf(options.timeout);
  const source = loadSource({ namespace, values, set, env });
  return withApi(options, (api) =>
    runInstall({
      api,
      clock: systemClock,
      source,
      namespace,
      upgrade: options.upgrade,
      dryRun: options.dryRun,
      ...(asData && { data: (value) => print(value, output, () => '') }),
      wait: options.wait,
      timeoutMs,
      force: options.forceConflicts,
      out: process.stdout,
      colour: inColour(),
    }),
  );
}

export async function uninstallCommand(options: Connection & UninstallFlags): Promise<number> {
  const { systemNamespace: namespace, dryRun, purgeCrds, purgeGateways, purgeLabels } = options;
  const timeoutMs = timeoutOf(options.timeout);
  if (!dryRun && !options.skipConfirmation) {
    if (!process.stdin.isTTY)
      throw new CommandError('uninstall asks first, and there is no terminal to ask on: say --skip-confirmation (-y)');
    const asking = createInterface({ input: process.stdin, output: process.stdout });
    const answer = await asking.question(`Remove Warren from namespace ${namespace}? Its pods go on in plaintext. [y/N] `);
    asking.close();
    if (!/^y(es)?$/i.test(answer.trim())) return 1;
  }
  return withApi(options, (api) =>
    runUninstall({
      api,
      clock: systemClock,
      namespace,
      dryRun,
      timeoutMs,
      purgeCrds,
      purgeGateways,
      purgeLabels,
      out: process.stdout,
      colour: inColour(),
    }),
  );
}

/** `90`, `90s`, `5m`. */
function timeoutOf(text: string): number {
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : parsed(text);
  if (!(ms > 0)) throw new CommandError(`--timeout ${text}: expected 90, 90s or 5m`);
  return ms;
}

function parsed(text: string): number {
  try {
    return duration.parse(text);
  } catch {
    // Said by the caller, with the flag's name.
    return Number.NaN;
  }
}
