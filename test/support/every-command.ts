/**
 * Every command of meshctl that asks a cluster and leaves it as it is, with its exit status and a line that it must print. What a test adds to
 * this is a mesh with a namespace `shop` in it: a waypoint `waypoint` with an HTTPRoute, an AuthorizationPolicy, and a Deployment that calls.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { createProgram } from '../../meshctl/program.ts';
import { type Ran, runProgram } from './kube-commands.ts';
import { root } from './playground.ts';

export interface Shop {
  /** A pod that calls, in `shop`. */
  readonly caller: string;
  /** A service of `shop` that is bound to the waypoint, and one that an AuthorizationPolicy is for. */
  readonly served: string;
  readonly guarded: string;
  readonly policy: string;
  /** For files; the caller's to remove. */
  readonly folder: string;
}

/** Without a code: it hangs on what was seen before. */
type Expected = readonly [line: string, code: number | undefined, says: RegExp];

const everyCommand = ({ caller, served, guarded, policy, folder }: Shop): readonly Expected[] => [
  ['check', 0, /^✔ pods: \d+ pods? in the mesh$/m],
  ['check --pre -o json', 0, /"check": "permissions"/],
  ['version', 0, /^data plane version: \S+ \(\d+ proxies\)$/m],
  ['status', 0, /^control plane {3}istiod \d\/\d ready/],
  ['ambient list', 0, /^shop +ambient +\d+\/\d+/m],
  ['-n shop waypoint list', 0, /^waypoint +default +service +True$/m],
  ['waypoint status -A', 0, /^shop +waypoint +True +Programmed/m],
  ['proxy-status', 0, /^ztunnel-\w+\.istio-system +Kubernetes .* 2 \(WADS,WDS\)$/m],
  ['coverage -n shop', undefined, new RegExp(`^AuthorizationPolicy shop/${policy}\\n +rules\\[0\\] +node +at \\d+ pod`, 'm')],
  [`explain shop/${caller} ${served}`, 0, /at waypoint shop\/waypoint-/],
  [`explain shop/${caller} ${guarded} -o json`, 0, new RegExp(`"shop/${policy}"`)],
  [`authz shop/${caller}`, 0, /^at ztunnel of \S+, (everything|what no DENY rule matches) is allowed$/m],
  [`rehearse --delete AuthorizationPolicy/${policy} -n shop`, undefined, /\d+ would not/],
  ['policy suggest -n shop', 0, /^kind: AuthorizationPolicy$/m],
  ['edges -n shop', 0, /^shop\/\S+ +shop\/\S+ .* yes$/m],
  ['top -n shop --once --window 1s', 0, /^SERVICE +RATE/m],
  [`tap shop/${served} --max 1 --duration 30s`, 0, / GET \/ +200 /],
  ['ztunnel-config workload', 0, /^shop +\S+ .* HBONE$/m],
  ['zc service', 0, new RegExp(`^shop +${served} +\\S+ +waypoint +\\d/\\d$`, 'm')],
  ['zc policy', 0, new RegExp(`^shop +${policy} +Allow +WorkloadSelector$`, 'm')],
  ['zc certificate', 0, /Leaf +Available +true/],
  ['zc connections', 0, /^WORKLOAD +DIRECTION/m],
  ['zc all --with-headers', 0, /^-+ WORKLOAD INFO -+$/m],
  ['zc log', 0, /^ztunnel-\w+\.istio-system: info/m],
  ...['routes', 'clusters', 'endpoints'].map((table): Expected => [`wc ${table} shop/waypoint`, 0, new RegExp(`^shop/${served} `, 'm')]),
  ['wc policies shop/waypoint', 0, /^KIND +POLICY|^no L7 policies$/m],
  ['wc secrets shop/waypoint', 0, /Available/],
  ['ca status', 0, /^signs +O=cluster\.local/m],
  ['ca rotate --rehearse', 0, /^Nothing stands in its way\.$/m],
  ['analyze -n shop', 0, /^/],
  ['install --dry-run', 0, /^Nothing was changed: this was a dry run\.$/m],
  ['upgrade --dry-run', 0, /^Nothing was changed: this was a dry run\.$/m],
  ['uninstall --dry-run', 0, /^DaemonSet istio-system\/ztunnel: would be deleted$/m],
  ['manifest generate', 0, /^kind: DaemonSet$/m],
  [`bug-report --file ${folder}/report.tar.gz`, 0, /report\.tar\.gz: \d+ files/],
];

/** Those that change what they are asked about, or ask no cluster: other tests run them. */
const ELSEWHERE = ['install', 'upgrade', 'uninstall', 'bypass', 'cert', 'playground', 'completion'];

/** Runs them in one process. @throws naming each that did otherwise */
export async function everyCommandWorks(kubeconfig: string, shop: Shop): Promise<readonly Ran[]> {
  const commands = everyCommand(shop);
  for (const command of createProgram({}).commands) {
    const names = [command.name(), ...command.aliases()];
    assert.ok(
      ELSEWHERE.includes(command.name()) || commands.some(([line]) => names.includes(line.replace(/^-n \S+ /, '').split(' ')[0] ?? '')),
      `${command.name()} is asked nothing`,
    );
  }
  const lines = commands.map(([line]) => JSON.stringify(['--kubeconfig', kubeconfig, ...line.split(' ')]));
  const ran = await runProgram(process.execPath, [join(root, 'test/support/meshctl-program.ts')], `${lines.join('\n')}\n`, 180_000);
  assert.equal(ran.code, 0, ran.stderr);
  const results = ran.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Ran);
  const wrong = commands.flatMap(([line, code, says], i) => {
    const { code: actual, stdout = '', stderr = '' } = results[i] ?? { code: undefined };
    return (code === undefined || actual === code) && says.test(stdout)
      ? []
      : [`meshctl ${line} exited with ${actual}:\n${stdout}${stderr}`];
  });
  assert.deepEqual(wrong, []);
  return results;
}
