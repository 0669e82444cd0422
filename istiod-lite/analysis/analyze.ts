/**
 * Analysis of a set of objects: the translation reads them all, as istiod would, then each is judged with what the translation makes of it,
 * and the analyzers look at what it cannot see. Pure.
 */
import { errorMessage } from '../../common/base/errors.ts';
import type { MeshModelConfig } from '../model/config.ts';
import { MeshIndex } from '../model/index.ts';
import * as names from '../model/names.ts';
import { at, list, textMap } from '../model/objects.ts';
import type { World } from './analyzer.ts';
import { objectChecks, setChecks } from './analyzers.ts';
import { judge } from './judge.ts';
import { byGravity, friendlyName, type Message, message } from './messages.ts';
import { type AnalyzedObject, type ObjectSet, watchedKind } from './object-set.ts';
import { workloadsOf } from './workloads.ts';

export interface AnalyzeOptions {
  readonly config: MeshModelConfig;
  /** Names of the analyzers that run; all where it is missing. */
  readonly only?: readonly string[];
}

/** The judgement of the translation, as one of the analyzers. */
export const TRANSLATION = 'mesh.Translation';

/** The gravest first; the same twice is said once. */
export function analyze(set: ObjectSet, { config, only }: AnalyzeOptions): Message[] {
  const index = indexOf(set, config);
  const world: World = { set, config, index, workloads: workloadsOf(set) };
  const wanted = (name: string): boolean => only === undefined || only.includes(name);
  const messages: Message[] = [];
  if (wanted(TRANSLATION)) {
    for (const one of set.values()) {
      const kind = watchedKind(one);
      if (kind) messages.push(...guarded(TRANSLATION, one, () => judge(one.origin, index.findings(kind, one.object))));
    }
  }
  for (const { name, check } of objectChecks)
    if (wanted(name)) for (const one of set.values()) messages.push(...guarded(name, one, () => check(one, { config })));
  for (const { name, check } of setChecks) if (wanted(name)) messages.push(...guarded(name, undefined, () => check(world)));
  return distinct(messages.filter((each) => !isSuppressed(each, set))).sort(byGravity);
}

/** One analyzer that breaks keeps none of the others from speaking. */
function guarded(name: string, one: AnalyzedObject | undefined, run: () => Iterable<Message>): Message[] {
  try {
    return [...run()];
  } catch (error) {
    const origin = one?.origin ?? { kind: 'Analyzer', namespace: '', name };
    return [message('internal', origin, `${name}: ${errorMessage(error)}`)];
  }
}

/** Objects as istiod reads them; a waypoint that is in a file alone counts as deployed, or everything behind it would be refused. */
function indexOf(set: ObjectSet, config: MeshModelConfig): MeshIndex {
  const index = new MeshIndex(config);
  index.apply({ type: 'added', kind: 'GatewayClass', object: WAYPOINT_CLASS });
  for (const one of set.values()) {
    const kind = watchedKind(one);
    if (kind) index.apply({ type: 'added', kind, object: kind === 'Gateway' && !one.live ? deployed(one, config) : one.object });
  }
  index.flush();
  return index;
}

/** istiod makes it where it is missing. */
const WAYPOINT_CLASS = { metadata: { name: 'istio-waypoint' }, spec: { controllerName: names.WAYPOINT_CONTROLLER } };

function deployed({ origin, object }: AnalyzedObject, { domain }: MeshModelConfig): unknown {
  if (list(at(object, 'status', 'addresses')).length > 0) return object;
  const host = `${origin.name}.${origin.namespace}.svc.${domain}`;
  return { ...object, status: { addresses: [{ type: 'Hostname', value: host }] } };
}

/** Istio's: codes with commas, or `*`. */
const SUPPRESS = 'galley.istio.io/analyze-suppress';

function isSuppressed({ type, origin }: Message, set: ObjectSet): boolean {
  const key = origin.namespace === '' ? origin.name : `${origin.namespace}/${origin.name}`;
  const written = textMap(at(set.find(origin.kind, key)?.object, 'metadata', 'annotations'))[SUPPRESS];
  return written?.split(',').some((code) => ['*', type.code].includes(code.trim())) ?? false;
}

function distinct(messages: readonly Message[]): Message[] {
  const seen = new Set<string>();
  return messages.filter(({ type, origin, text }) => {
    const id = JSON.stringify([type.code, friendlyName(origin), text]);
    if (seen.has(id)) return false;
    seen.add(id);
    return true;
  });
}
