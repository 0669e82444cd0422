/**
 * A change of the mesh tried against what was decided lately: the cluster's objects are translated a second time, beside the translation that
 * proxies are told, then once more with the change, and each recorded decision is judged under both. Nothing of it reaches a proxy.
 */
import type { KubeObject } from '../../common/client/kube-api.ts';
import { KubeApiError } from '../../common/client/kube-api.ts';
import { type Decision, type JournalRow, mergeRows } from '../../common/decision/journal.ts';
import { type Judgement, unknown } from '../../common/decision/recorded.ts';
import type { ProxyJournal } from '../diagnostics/journals.ts';
import type { ClusterApi } from '../kube/cluster-api.ts';
import type { MeshModelConfig } from '../model/config.ts';
import { MeshIndex } from '../model/index.ts';
import { type WatchedKindName, watchedKinds } from '../model/watched-kinds.ts';
import { BadCandidate, type Candidate } from './candidate.ts';
import { MeshPicture } from './picture.ts';

export interface RehearsedRow extends JournalRow {
  readonly now: Judgement;
  readonly after: Judgement;
}

export interface Rehearsal {
  /** Rows and decisions that stay as they are. */
  readonly unchanged: { readonly rows: number; readonly count: number };
  readonly changed: readonly RehearsedRow[];
  /** What would become of these cannot be said. */
  readonly unknown: readonly RehearsedRow[];
  /** What istiod has to say of the objects themselves. */
  readonly problems: readonly string[];
  /** Proxies that could not be asked, and journals that do not go back so far. */
  readonly notes: readonly string[];
}

export interface RehearsalWorld {
  readonly api: Pick<ClusterApi, 'listPage'>;
  readonly config: MeshModelConfig;
  readonly signal: AbortSignal;
}

/** Of each list of an answer; the rest is counted in a note. */
const MAX_ROWS = 2000;
const CHUNK = 500;
const WORKLOADS_AT_ONCE = 2000;

/** @throws {BadCandidate} for a deletion of what is not there, or an object that cannot be read */
export async function rehearse(candidate: Candidate, journals: readonly ProxyJournal[], world: RehearsalWorld): Promise<Rehearsal> {
  const shadow = await shadowOf(world, candidate);
  const now = new MeshPicture(shadow);
  const before = new Set([...shadow.problems()].map(textOf));
  overlay(shadow, candidate);
  await flush(shadow);
  const after = new MeshPicture(shadow);
  const problems = [...shadow.problems()].map(textOf).filter((text) => !before.has(text));
  const rows = await judgeAll(journals, now, after);
  return { ...rows, problems, notes: [...notesOf(journals, candidate.sinceMs), ...rows.notes] };
}

const textOf = ({ object, message }: { object: string; message: string }): string => `${object}: ${message}`;

async function judgeAll(journals: readonly ProxyJournal[], now: MeshPicture, after: MeshPicture): Promise<Omit<Rehearsal, 'problems'>> {
  const unchanged = { rows: 0, count: 0 };
  const changed: RehearsedRow[] = [];
  const lacking: RehearsedRow[] = [];
  let judged = 0;
  for (const { gateway, rows } of groupsOf(journals)) {
    for (const row of rows) {
      // Others wait for this process.
      if (++judged % CHUNK === 0) await new Promise((resolve) => setImmediate(resolve));
      const verdicts = judgeBoth(row.decision, gateway, now, after);
      if (verdicts === undefined || isSame(verdicts.now, verdicts.after)) {
        unchanged.rows++;
        unchanged.count += row.count;
      } else if (verdicts.after.outcome === 'unknown') lacking.push({ ...row, ...verdicts });
      else changed.push({ ...row, ...verdicts });
    }
  }
  const notes = [changed, lacking].flatMap((list) => (list.length > MAX_ROWS ? [`${list.length - MAX_ROWS} more rows are not shown`] : []));
  return { unchanged, changed: mostFirst(changed), unknown: mostFirst(lacking), notes };
}

const mostFirst = (rows: readonly RehearsedRow[]): RehearsedRow[] => [...rows].sort((a, b) => b.count - a.count).slice(0, MAX_ROWS);

/** Replicas of a waypoint have the same rules, and ztunnels all have the same. */
function* groupsOf(journals: readonly ProxyJournal[]): Generator<{ gateway: string; rows: JournalRow[] }> {
  for (const [gateway, those] of Map.groupBy(journals, ({ gateway }) => gateway))
    yield { gateway, rows: mergeRows(those.flatMap(({ rows }) => rows)) };
}

/** Refused for what no policy and no route decides. */
const BEYOND: ReadonlySet<string> = new Set([
  'WAYPOINT_NOT_BOUND',
  'SELF_CALL',
  'IP_MISMATCH',
  'BAD_REQUEST',
  'WORKLOAD_UNKNOWN',
  'SERVICE_UNKNOWN',
  'PREDATES_MESH',
  'TLS_FAILURE',
]);

/** @returns undefined for what was decided elsewhere as well, or by nothing that objects say */
export function judgeBoth(
  decision: Decision,
  gateway: string,
  now: MeshPicture,
  after: MeshPicture,
): { readonly now: Judgement; readonly after: Judgement } | undefined {
  // Where it leads is judged where it arrives; what did not leave its pod depends on waypoints, which the journal does not have.
  const moved = now.bindingOf(decision) !== after.bindingOf(decision);
  if (decision.at === 'outbound' && (!moved || decision.verdict === 'allowed')) return undefined;
  if (BEYOND.has(decision.code)) return undefined;
  const today = decision.at === 'outbound' ? unknown('') : now.judge(decision, gateway);
  if (moved) return { now: today, after: unknown('its destination would be bound to another waypoint, or to none') };
  if (decision.at === 'request' && now.tokenRules(gateway) !== after.tokenRules(gateway))
    return { now: today, after: unknown('other tokens would be asked for, and tokens are not recorded') };
  if (decision.code === 'TOKEN_INVALID') return undefined;
  return { now: today, after: after.judge(decision, gateway) };
}

/** What people would notice: another outcome, or another route. Which policy allows something is nobody's business. */
export const isSame = (a: Judgement, b: Judgement): boolean =>
  a.outcome === b.outcome && (a.outcome === 'unknown' || a.code === b.code) && a.route === b.route;

function notesOf(journals: readonly ProxyJournal[], sinceMs: number): string[] {
  return journals.flatMap(({ proxy, error, completeSinceMs }) => {
    if (error !== undefined) return [`${proxy} was not asked: ${error}`];
    if (completeSinceMs > sinceMs) return [`${proxy} has let go of decisions before ${new Date(completeSinceMs).toISOString()}`];
    return [];
  });
}

/** The cluster translated once more, as it is. @throws {BadCandidate} for a deletion of what is not there */
async function shadowOf({ api, config, signal }: RehearsalWorld, { remove }: Candidate): Promise<MeshIndex> {
  const shadow = new MeshIndex(config);
  const absent = new Set(remove.map(({ kind, namespace, name }) => `${kind} ${namespace}/${name}`));
  for (const kind of Object.keys(watchedKinds) as WatchedKindName[]) {
    for await (const object of listed(api, kind, signal)) {
      shadow.apply({ type: 'added', kind, object });
      absent.delete(`${kind} ${object.metadata.namespace ?? ''}/${object.metadata.name}`);
    }
  }
  const [first] = absent;
  if (first !== undefined) throw new BadCandidate(`there is no ${first} to delete`);
  await flush(shadow);
  return shadow;
}

async function* listed(api: Pick<ClusterApi, 'listPage'>, kind: WatchedKindName, signal: AbortSignal): AsyncGenerator<KubeObject> {
  const { path, optional } = watchedKinds[kind];
  let next = '';
  do {
    try {
      const page = await api.listPage<KubeObject>(path, { continue: next || undefined }, signal);
      yield* page.items;
      next = page.continue;
    } catch (error) {
      // A kind whose definition is not installed has no objects.
      if (optional && error instanceof KubeApiError && error.status === 404) return;
      throw error;
    }
  } while (next !== '');
}

/** Puts the candidate over what is there. */
export function overlay(shadow: MeshIndex, { apply, remove }: Pick<Candidate, 'apply' | 'remove'>): void {
  for (const { kind, object } of apply) shadow.apply({ type: 'modified', kind, object });
  for (const { kind, namespace, name } of remove) shadow.apply({ type: 'deleted', kind, object: { metadata: { namespace, name } } });
}

async function flush(shadow: MeshIndex): Promise<void> {
  while (shadow.flush(WORKLOADS_AT_ONCE).more) await new Promise((resolve) => setImmediate(resolve));
}
