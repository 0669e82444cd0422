/**
 * Server-side apply of an installation, tried before it is done: the API server goes through every object without keeping it, so that what is
 * invalid, forbidden, or set by somebody else is named before anything is changed.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../../common/base/clock.ts';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { type Finding, failure, oneLine } from '../check/finding.ts';
import { CommandError } from '../command-error.ts';
import { DEFINITION, DEFINITIONS_PATH, FIELD_MANAGER, INSTALLATION, OWN_DEFINITION, objectPath, titleOf } from './kinds.ts';

export type InstallApi = Pick<KubeApi, 'get' | 'getText' | 'list' | 'create' | 'patch' | 'delete'>;

export type Change = 'created' | 'changed' | 'unchanged';

export interface Rehearsed {
  readonly object: KubeObject;
  readonly change: Change;
}

export interface Rehearsal {
  readonly rehearsed: readonly Rehearsed[];
  readonly findings: readonly Finding[];
}

/**
 * What applying would do. A field that another manager set is an error, unless `force` takes it over; then it is named all the same.
 * @throws what the API server's absence throws
 */
export async function rehearse(api: InstallApi, objects: readonly KubeObject[], force: boolean): Promise<Rehearsal> {
  const rehearsed: Rehearsed[] = [];
  const findings: Finding[] = [];
  const missing = new Set<string>();
  for (const object of objects) {
    const before = await find<KubeObject>(api, objectPath(object));
    if (object.kind === 'Namespace' && !before) missing.add(object.metadata.name ?? '');
    // In a namespace that is not there yet nothing can be tried, and nobody has set anything.
    if (!before && missing.has(object.metadata.namespace ?? '')) {
      rehearsed.push({ object, change: 'created' });
      continue;
    }
    const stranger = foreign(object, before);
    if (stranger) {
      findings.push(stranger);
      continue;
    }
    try {
      const after = await dryRun(api, object, false).catch((error: unknown) => {
        const conflicts = conflictsOf(error);
        if (conflicts.length === 0) throw error;
        for (const conflict of conflicts) findings.push(conflictFinding(object, conflict, force));
        return force ? dryRun(api, object, true) : undefined;
      });
      if (after) rehearsed.push({ object, change: before ? (isSame(before, after) ? 'unchanged' : 'changed') : 'created' });
    } catch (error) {
      findings.push(refusal(object, error));
    }
  }
  return { rehearsed, findings };
}

/** Creates the definitions that the cluster does not have, and waits until it serves them. @returns their names */
export async function createDefinitions(api: InstallApi, definitions: readonly KubeObject[], clock: Clock): Promise<string[]> {
  const created: string[] = [];
  for (const definition of definitions) {
    const name = definition.metadata.name ?? '';
    const path = `${DEFINITIONS_PATH}/${name}`;
    const own = definition.metadata.labels?.[DEFINITION] === OWN_DEFINITION;
    const there = await find(api, path);
    // What is there of Istio's kinds is somebody's; our own comes up to date.
    if (there && (!own || holds((there as KubeObject).spec, definition.spec))) continue;
    try {
      if (own) {
        await api.patch(path, definition, { type: 'apply', fieldManager: FIELD_MANAGER, force: true });
        if (!there) created.push(name);
        continue;
      }
      await api.create(DEFINITIONS_PATH, definition, { fieldManager: FIELD_MANAGER });
      created.push(name);
    } catch (error) {
      // Somebody else made it in the meantime, and his it is.
      if (!(error instanceof KubeApiError && error.status === 409)) throw applyError(`CustomResourceDefinition ${name}`, error);
    }
  }
  for (const name of created) await established(api, name, clock);
  return created;
}

/** In the order given. @param applied hears of each object. @throws {CommandError} with the object that the API server refused */
export async function applyAll(
  api: InstallApi,
  objects: readonly KubeObject[],
  { force, applied }: { readonly force: boolean; applied(object: KubeObject): void },
): Promise<void> {
  for (const object of objects) {
    try {
      await api.patch(objectPath(object), object, { type: 'apply', fieldManager: FIELD_MANAGER, force });
    } catch (error) {
      throw applyError(titleOf(object), error);
    }
    applied(object);
  }
}

export async function find<T>(api: Pick<KubeApi, 'get'>, path: string): Promise<T | undefined> {
  try {
    return await api.get<T>(path);
  } catch (error) {
    if (error instanceof KubeApiError && error.status === 404) return undefined;
    throw error;
  }
}

const dryRun = (api: InstallApi, object: KubeObject, force: boolean): Promise<KubeObject> =>
  api.patch<KubeObject>(objectPath(object), object, { type: 'apply', fieldManager: FIELD_MANAGER, force, dryRun: true });

export interface Conflict {
  readonly manager: string;
  readonly field: string;
}

/** The API server tells them in one text: `conflict with "kubectl-edit" using apps/v1: .spec.replicas`, or a list of fields under a manager. */
export function conflictsOf(error: unknown): Conflict[] {
  if (!(error instanceof KubeApiError) || error.status !== 409 || !/Apply failed with \d+ conflicts?/.test(error.message)) return [];
  return [...error.message.matchAll(/conflicts? with "([^"]+)"[^:]*(?::\d\d:\d\dZ)?:((?:\s*(?:- )?\.\S+)+)/g)].flatMap(
    ([, manager = '', fields = '']) =>
      fields
        .split(/\s+/)
        .filter((field) => field.startsWith('.'))
        .map((field) => ({ manager, field: field.replace(/,$/, '') })),
  );
}

function conflictFinding(object: KubeObject, { manager, field }: Conflict, force: boolean): Finding {
  const title = titleOf(object);
  if (force) return { check: title, severity: 'warning', message: `${field}, which ${manager} has set, is taken over`, mend: '' };
  return failure(title, `${field} was set by ${manager}`, 'set it back, give the value to the chart, or take it over by --force-conflicts');
}

/** An object of our name that is not of this installation: Istio's, or one that Helm keeps. */
function foreign(object: KubeObject, before: KubeObject | undefined): Finding | undefined {
  if (!before || object.kind === 'Namespace') return undefined;
  const { annotations = {}, labels = {} } = before.metadata;
  const release = annotations['meta.helm.sh/release-name'];
  const namespace = annotations['meta.helm.sh/release-namespace'];
  if (release !== undefined && labels[INSTALLATION] !== undefined)
    return failure(titleOf(object), `belongs to Helm's release ${namespace}/${release}`, `helm upgrade ${release} -n ${namespace}`);
  if (labels[INSTALLATION] !== undefined) return undefined;
  return failure(titleOf(object), 'is there already and is not of Warren', 'remove it, or turn off the piece that it belongs to');
}

function refusal(object: KubeObject, error: unknown): Finding {
  if (!(error instanceof KubeApiError)) throw error;
  const text = oneLine(error.message.replace(/^PATCH \S+ \d+ /, '').replace(/^PATCH \S+: \d+ /, ''));
  if (error.status === 403)
    return failure(titleOf(object), `is forbidden: ${text}`, 'ask for the right, or use an account of cluster-admin');
  if (error.status === 404) return failure(titleOf(object), `cannot be: ${text}`, 'is this a Kubernetes API server?');
  if (error.status >= 500) throw error;
  return failure(titleOf(object), `is refused: ${text}`, 'correct the value that it was made from');
}

function applyError(what: string, error: unknown): CommandError {
  const why = error instanceof Error ? oneLine(error.message) : String(error);
  return new CommandError(`${what} could not be applied: ${why}; what was applied before it stays, run the command again`);
}

/** Equal but for what the API server itself writes. */
function isSame(before: KubeObject, after: KubeObject): boolean {
  const essence = ({ metadata, status: _, ...rest }: KubeObject): unknown => {
    const { managedFields: _m, resourceVersion: _r, generation: _g, ...meta } = metadata;
    return { ...rest, metadata: meta };
  };
  return isDeepStrictEqual(essence(before), essence(after));
}

/** Whether all that is wanted is there; the API server adds its defaults. */
function holds(there: unknown, wanted: unknown): boolean {
  if (typeof wanted !== 'object' || wanted === null) return there === wanted;
  if (typeof there !== 'object' || there === null) return false;
  if (Array.isArray(wanted) && !(Array.isArray(there) && there.length === wanted.length)) return false;
  return Object.entries(wanted).every(([name, value]) => holds((there as Record<string, unknown>)[name], value));
}

const ESTABLISHED_MS = 30_000;
const POLL_MS = 100;

async function established(api: InstallApi, name: string, clock: Clock): Promise<void> {
  const deadline = clock.monotonic() + ESTABLISHED_MS;
  for (;;) {
    const { status } = await api.get<KubeObject>(`${DEFINITIONS_PATH}/${name}`);
    const { conditions = [] } = (status ?? {}) as { conditions?: { type: string; status: string }[] };
    if (conditions.some((condition) => condition.type === 'Established' && condition.status === 'True')) return;
    if (clock.monotonic() > deadline)
      throw new CommandError(`CustomResourceDefinition ${name} is not served after ${ESTABLISHED_MS / 1000} s`);
    await pause(clock, POLL_MS);
  }
}

/** systemClock's timers do not keep a process alive; a command that waits must. */
export async function pause(clock: Clock, ms: number): Promise<void> {
  const alive = setInterval(() => undefined, 60_000);
  await new Promise<void>((resolve) => clock.after(ms, resolve));
  clearInterval(alive);
}
