/** Starts the node agent: settings from the environment, ends at SIGTERM. Exit status 2 for bad settings, 1 where it could not start. */
import { accessSync, constants, existsSync } from 'node:fs';
import { systemClock } from '../common/base/clock.ts';
import { errorMessage } from '../common/base/errors.ts';
import { createLog } from '../common/base/log.ts';
import { readSettings, SettingsError } from '../common/base/settings.ts';
import { KubeApi } from '../common/client/kube-api.ts';
import { hardenProcess } from '../common/linux/hardening.ts';
import { raiseOpenFileLimit } from '../common/linux/limits.ts';
import { NodeAgent } from './agent.ts';
import { type CniSettings, cniSettings } from './settings.ts';

function settingsOrExit(): CniSettings {
  try {
    hardenProcess({ env: process.env, execArgv: process.execArgv, keep: ['exec', 'setns', 'unshare'] });
    const settings = readSettings(cniSettings, process.env);
    if (settings.nodeName === '') throw new SettingsError(['NODE_NAME is not set: which node is this?']);
    return settings;
  } catch (error) {
    process.stderr.write(`${errorMessage(error)}\n`);
    process.exit(2);
  }
}

const settings = settingsOrExit();
const { log, writer } = createLog({ level: settings.logLevel, format: settings.logFormat, scope: 'cni' });

function exit(status: number): never {
  writer.flushNow();
  process.exit(status);
}

/**
 * The old iptables locks a file of the whole machine, which is not there to be written in a container with a read-only root; then each network
 * namespace is its own lock, as nobody else writes rules in a pod. Mount the host's /run/xtables.lock where such programs write on the node too.
 */
function chooseIptablesLock(): void {
  try {
    accessSync('/run', constants.W_OK);
  } catch {
    if (!existsSync('/run/xtables.lock')) process.env.XTABLES_LOCKFILE ??= '/proc/self/ns/net';
  }
}

try {
  chooseIptablesLock();
  raiseOpenFileLimit();
  const api = KubeApi.load({ env: process.env });
  const agent = new NodeAgent({ settings, api, clock: systemClock, random: Math.random, log });
  let stopping = false;
  const stop = (): void => {
    if (stopping) return;
    stopping = true;
    agent.stop().then(
      () => exit(0),
      (error: unknown) => {
        log.error({ error: errorMessage(error) }, 'stopping failed');
        exit(1);
      },
    );
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  await agent.start();
} catch (error) {
  log.error({ error: errorMessage(error) }, 'the node agent could not start');
  exit(1);
}
