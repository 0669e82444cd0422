/** `meshctl bug-report`: one archive with what somebody needs who has to find out what is wrong, and nothing that is nobody's business. */
import { existsSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import { systemClock } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import { VERSION } from '../../common/base/version.ts';
import { KubeApiError } from '../../common/client/kube-api.ts';
import { collect } from '../bug-report/collect.ts';
import { redactText } from '../bug-report/redact.ts';
import { tar } from '../bug-report/tar.ts';
import { findingLine } from '../check/finding.ts';
import { checkInstallation, observeInstallation } from '../check/installation.ts';
import { CommandError } from '../command-error.ts';
import { withApi } from '../session.ts';
import { collect as collectStatus } from '../status/collect.ts';
import { makeReport } from '../status/report.ts';
import { type Connection, plural, secondsOf } from '../terminal.ts';
import { render } from './status.ts';

export interface BugReportOptions extends Connection {
  readonly file?: string;
  readonly namespace?: readonly string[];
  readonly logLines: string;
  readonly maxSize: string;
  readonly timeout: string;
}

const FOLDER = 'warren-bug-report';

export async function bugReport(options: BugReportOptions): Promise<number> {
  const { systemNamespace } = options;
  const logLines = numberOf(options.logLines, '--log-lines', 1_000_000);
  const maxBytes = numberOf(options.maxSize, '--max-size', 4096) * 2 ** 20;
  const seconds = secondsOf(options.timeout, '--timeout', { least: 5, most: 3600 });
  const file = resolve(options.file ?? `${FOLDER}.tar.gz`);
  if (existsSync(file)) throw new CommandError(`${file} exists: name another one with --file, or remove it`);
  const progress = (what: string): void => void (process.stderr.isTTY && console.error(`collecting ${what} …`));
  return withApi(options, async (api) => {
    const signal = AbortSignal.timeout(seconds * 1000);
    // Refused by a cluster is worth a report; where there is none, there is nothing to report.
    await api.get('/version').catch((error: unknown) => {
      if (!(error instanceof KubeApiError)) throw error;
    });
    progress('status');
    const spoken = async (make: () => Promise<string>): Promise<string> => {
      try {
        return await make();
      } catch (error) {
        return `cannot be said: ${errorMessage(error)}`;
      }
    };
    const status = await spoken(async () => render(makeReport(await collectStatus(api, systemNamespace, systemClock)), false, Infinity));
    const check = await spoken(async () =>
      checkInstallation(await observeInstallation(api, systemNamespace, systemClock), VERSION)
        .map((finding) => findingLine(finding, false))
        .join('\n'),
    );
    const { files, missing } = await collect({ api, systemNamespace, namespaces: options.namespace, logLines, maxBytes, signal, progress });
    const summary = [
      `meshctl ${VERSION}, ${new Date().toISOString()}`,
      'Taken out: data of Secrets, private keys, tokens, passwords; values of variables and fields that are named so.',
      '',
      missing.length === 0 ? 'nothing is missing' : 'missing:',
      ...missing.map((line) => `  ${line}`),
    ].join('\n');
    const bundle = [
      { name: 'summary.txt', content: Buffer.from(`${summary}\n`) },
      { name: 'status.txt', content: Buffer.from(`${redactText(status)}\n`) },
      { name: 'check.txt', content: Buffer.from(`${redactText(check)}\n`) },
      ...files,
    ].map(({ name, content }) => ({ name: `${FOLDER}/${name}`, content }));
    const archive = gzipSync(tar(bundle, Date.now() / 1000));
    // Whose cluster it is decides who reads it.
    writeFileSync(file, archive, { mode: 0o600, flag: 'wx' });
    for (const line of missing) console.error(`missing: ${line}`);
    console.log(
      `${file}: ${plural(bundle.length, 'file')}, ${Math.ceil(archive.length / 1024)} KiB; look through it before you hand it on`,
    );
    return missing.length > 0 ? 1 : 0;
  });
}

function numberOf(text: string, flag: string, most: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > most) throw new CommandError(`${flag} ${text}: expected a number from 1 to ${most}`);
  return value;
}
