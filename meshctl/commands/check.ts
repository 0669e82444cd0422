/** `meshctl check` and `meshctl check --pre`. */
import { systemClock } from '../../common/base/clock.ts';
import { VERSION } from '../../common/base/version.ts';
import { type Finding, findingLine, findingsData, hasErrors, linked } from '../check/finding.ts';
import { checkInstallation, observeInstallation } from '../check/installation.ts';
import { observe } from '../check/observe.ts';
import { preflight } from '../check/preflight.ts';
import { CommandError } from '../command-error.ts';
import { loadSource } from '../install/source.ts';
import { withApi } from '../session.ts';
import { type Connection, checkFormat, folded, inColour, plural, print } from '../terminal.ts';

export interface CheckFlags {
  readonly pre: boolean;
  readonly values: readonly string[];
  readonly set: readonly string[];
  readonly output: string;
}

export async function checkCommand(options: Connection & CheckFlags): Promise<number> {
  const { systemNamespace: namespace, pre, values, set, output, env } = options;
  checkFormat(output);
  if (!pre && values.length + set.length > 0) throw new CommandError('--values and --set go with --pre');
  const source = pre ? loadSource({ namespace, values, set, env }) : undefined;
  return withApi(options, async (api) => {
    const findings = source
      ? preflight(await observe(api, { namespace, objects: source.objects, verbs: ['get', 'create', 'patch', 'delete'] }))
      : checkInstallation(await observeInstallation(api, namespace, systemClock), VERSION);
    const shown = findings.map((finding) => linked(finding, pre));
    // A finding is one line where a program reads it.
    await print(findingsData(shown), output, (width) => (process.stdout.isTTY ? folded(text(shown), width) : text(shown)));
    return hasErrors(findings) ? 1 : 0;
  });
}

function text(findings: readonly Finding[]): string {
  const colour = inColour();
  const errors = findings.filter(({ severity }) => severity === 'error').length;
  const warnings = findings.filter(({ severity }) => severity === 'warning').length;
  const all = errors + warnings === 0 ? 'nothing to mend' : `${plural(errors, 'error')}, ${plural(warnings, 'warning')}`;
  return [...findings.map((finding) => findingLine(finding, colour)), all].join('\n');
}
