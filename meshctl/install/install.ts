/** `meshctl install` and `meshctl upgrade`: look, try, say what is in the way; only then apply, in order, and wait. */
import type { Clock } from '../../common/base/clock.ts';
import type { KubeObject } from '../../common/client/kube-api.ts';
import { type Finding, findingLine, hasErrors, linked, ok, warning } from '../check/finding.ts';
import { observe } from '../check/observe.ts';
import { preflight } from '../check/preflight.ts';
import { plural } from '../terminal.ts';
import { applyAll, createDefinitions, type InstallApi, type Rehearsed, rehearse } from './apply.ts';
import { installedObjects, installedVersion } from './inventory.ts';
import { isPod, objectPath, titleOf } from './kinds.ts';
import { createProgress, type Output } from './progress.ts';
import type { Source } from './source.ts';
import { waitForRollout } from './wait.ts';

export interface InstallWork {
  readonly api: InstallApi;
  readonly clock: Clock;
  readonly source: Source;
  readonly namespace: string;
  readonly upgrade: boolean;
  readonly dryRun: boolean;
  /** Of a dry run, instead of lines: how an object is printed. */
  readonly data?: (value: object) => Promise<void>;
  readonly wait: boolean;
  readonly timeoutMs: number;
  /** Fields that other managers have set are taken over, and named. */
  readonly force: boolean;
  readonly out: Output;
  readonly colour: boolean;
}

/** @returns the exit status: 0 done, 1 something is in the way. @throws {CommandError} where an object is refused while it is applied */
export async function runInstall(work: InstallWork): Promise<number> {
  const { out, colour, data, dryRun } = work;
  const plan = await look(work);
  if (data && dryRun) {
    const changes = plan.rehearsed.map(({ object, change }) => ({ object: titleOf(object), change }));
    const gone = plan.obsolete.map((object) => ({ object: titleOf(object), change: 'deleted' }));
    await data({ ok: !hasErrors(plan.findings), findings: plan.findings, changes: [...changes, ...gone] });
    return hasErrors(plan.findings) ? 1 : 0;
  }
  for (const finding of plan.findings) if (finding.severity !== 'ok') out.write(`${findingLine(finding, colour)}\n`);
  if (hasErrors(plan.findings)) {
    out.write('Nothing was changed.\n');
    return 1;
  }
  if (!dryRun) return change(work, plan);
  for (const { object, change: what } of plan.rehearsed) out.write(`${titleOf(object)}: would be ${what}\n`);
  for (const object of plan.obsolete) out.write(`${titleOf(object)}: would be deleted\n`);
  out.write('Nothing was changed: this was a dry run.\n');
  return 0;
}

interface Plan {
  readonly findings: readonly Finding[];
  readonly rehearsed: readonly Rehearsed[];
  /** Of an older version, and of this one no more. */
  readonly obsolete: readonly KubeObject[];
}

async function look({ api, source, namespace, upgrade, force }: InstallWork): Promise<Plan> {
  const { objects } = source;
  const verbs = ['get', 'create', 'patch', ...(upgrade ? ['list', 'delete'] : [])];
  const findings = preflight(await observe(api, { namespace, objects, verbs }));
  if (hasErrors(findings)) return { findings: findings.map((each) => linked(each, true)), rehearsed: [], obsolete: [] };
  const installed = await installedObjects(api, namespace);
  const state = stateFindings(installedVersion(installed), source.version, upgrade);
  const { rehearsed, findings: refused } = await rehearse(api, objects, force);
  const kept = new Set(objects.map(objectPath));
  const obsolete = upgrade ? installed.filter((object) => object.kind !== 'Namespace' && !kept.has(objectPath(object))) : [];
  return { findings: [...findings, ...state, ...refused].map((each) => linked(each, true)), rehearsed, obsolete };
}

function stateFindings(present: string | undefined, version: string, upgrade: boolean): Finding[] {
  const check = 'installation';
  if (upgrade && present === undefined)
    return [{ check, severity: 'error', message: 'nothing is installed in this namespace', mend: 'meshctl install' }];
  if (present === undefined) return [ok(check, `version ${version}`)];
  if (!upgrade && present !== version)
    return [
      {
        check,
        severity: 'error',
        message: `version ${present} is installed already`,
        mend: 'meshctl upgrade, which keeps the right order',
      },
    ];
  if (isOlder(version, present)) return [warning(check, `version ${version} is older than ${present}, which is installed`, '')];
  return [ok(check, `version ${present}`)];
}

/** By the numbers of two versions; false where one has none. */
export function isOlder(a: string, b: string): boolean {
  const [left, right] = [a, b].map((version) => /^v?(\d+)\.(\d+)\.(\d+)/.exec(version)?.slice(1).map(Number));
  if (!left || !right) return false;
  const at = left.findIndex((number, i) => number !== right[i]);
  return at >= 0 && (left[at] ?? 0) < (right[at] ?? 0);
}

async function change(work: InstallWork, { obsolete }: Plan): Promise<number> {
  const { api, clock, source, upgrade, out, colour, namespace } = work;
  const progress = createProgress(out);
  const definitions = await createDefinitions(api, source.definitions, clock);
  if (definitions.length > 0) progress.note(`✔ ${plural(definitions.length, 'definition')} of kinds created`);
  // At an upgrade istiod goes first: a newer istiod serves older proxies, the other way nobody has promised.
  for (const objects of upgrade ? phases(source.objects) : [source.objects]) {
    await applyAll(api, objects, { force: work.force, applied: (object) => progress.note(`✔ ${titleOf(object)} applied`) });
    if (!work.wait) continue;
    const findings = await waitForRollout(objects.filter(isPod), { ...work, progress });
    progress.show([]);
    for (const finding of findings) out.write(`${findingLine(linked(finding, false), colour)}\n`);
    if (findings.length > 0) return 1;
    for (const object of objects.filter(isPod)) progress.note(`✔ ${titleOf(object)} is ready`);
  }
  for (const object of obsolete) {
    await api.delete(objectPath(object), { propagationPolicy: 'Background' });
    progress.note(`✔ ${titleOf(object)} deleted: version ${source.version} has it no more`);
  }
  const done = upgrade ? 'upgraded to' : 'installed, version';
  out.write(`Warren is ${done} ${source.version}, in namespace ${namespace}.\n`);
  if (!upgrade) out.write('Put a namespace into the mesh: meshctl ambient enable NAMESPACE\n');
  return 0;
}

/** istiod and everything that belongs to nobody in particular, then the node agent, then ztunnel. */
function phases(objects: readonly KubeObject[]): KubeObject[][] {
  const node = ['istio-cni-node', 'ztunnel'];
  const of = (object: KubeObject): string => object.metadata.labels?.app ?? '';
  return [objects.filter((object) => !node.includes(of(object))), ...node.map((app) => objects.filter((object) => of(object) === app))];
}
