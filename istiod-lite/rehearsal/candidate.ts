/** What somebody wants to rehearse: objects to apply and objects to delete, as they came with the question. */
import type { Decision } from '../../common/decision/journal.ts';
import { concerns } from '../diagnostics/journals.ts';
import { isRecord, readMeta } from '../model/objects.ts';
import { type WatchedKindName, watchedKinds } from '../model/watched-kinds.ts';

export interface Candidate {
  readonly apply: readonly {
    readonly kind: WatchedKindName;
    readonly object: unknown;
    readonly namespace: string;
    readonly name: string;
  }[];
  readonly remove: readonly { readonly kind: WatchedKindName; readonly namespace: string; readonly name: string }[];
  readonly sinceMs: number;
  /** Instead of what was recorded: decisions that somebody thinks of, each at a proxy (`POD.NAMESPACE`). */
  readonly asked: readonly { readonly proxy: string; readonly decision: Decision }[] | undefined;
}

/** The question is none; the message says what is wrong with it, and where. */
export class BadCandidate extends Error {}

const MAX_OBJECTS = 1000;

/** @param sight the one namespace that its objects may be of; undefined for any @throws {BadCandidate} */
export function readCandidate(body: unknown, sight: string | undefined): Candidate {
  if (!isRecord(body)) throw new BadCandidate('expected a JSON object with apply, remove and sinceMs');
  const apply = listOf(body.apply, 'apply').map((object, i) => {
    const at = `object ${i + 1}`;
    const meta = readMeta(object);
    if (!isRecord(object) || !meta) throw new BadCandidate(`${at} has no metadata.name`);
    const named = isRecord(object.metadata) && typeof object.metadata.namespace === 'string' ? object.metadata.namespace : '';
    return { ...placeOf(object.kind, { namespace: named, name: meta.name }, at, sight), object };
  });
  const remove = listOf(body.remove, 'remove').map((object, i) => {
    const at = `deletion ${i + 1}`;
    if (!isRecord(object) || typeof object.name !== 'string') throw new BadCandidate(`${at} names no object`);
    return placeOf(object.kind, { namespace: typeof object.namespace === 'string' ? object.namespace : '', name: object.name }, at, sight);
  });
  if (apply.length + remove.length === 0) throw new BadCandidate('there is nothing to apply and nothing to delete');
  const asked =
    body.asked === undefined ? undefined : listOf(body.asked, 'asked').map((one, i) => readAsked(one, `decision ${i + 1}`, sight));
  return { apply, remove, sinceMs: typeof body.sinceMs === 'number' ? body.sinceMs : 0, asked };
}

const TEXTS = ['source', 'sourceIp', 'identity', 'service', 'pod', 'uid', 'ip', 'code', 'policy', 'route'] as const;

/** A decision as meshctl makes it out of an explanation. */
function readAsked(one: unknown, at: string, sight: string | undefined): { proxy: string; decision: Decision } {
  const decision = isRecord(one) ? one.decision : undefined;
  if (!isRecord(one) || !isRecord(decision) || typeof one.proxy !== 'string') throw new BadCandidate(`${at}: expected proxy and decision`);
  const wrong = TEXTS.find((field) => typeof decision[field] !== 'string');
  if (wrong !== undefined || typeof decision.port !== 'number') throw new BadCandidate(`${at}: expected a text as ${wrong ?? 'port'}`);
  if (decision.at !== 'inbound' && decision.at !== 'request' && decision.at !== 'connection')
    throw new BadCandidate(`${at}: nobody decides there`);
  if (decision.at === 'request' && !isRequest(decision.request)) throw new BadCandidate(`${at}: its request is none`);
  const read = decision as unknown as Decision;
  if (sight !== undefined && !concerns(read, sight)) throw new BadCandidate(`${at}: it has nothing to do with namespace ${sight}`);
  return { proxy: one.proxy, decision: read };
}

const isRequest = (request: unknown): boolean =>
  isRecord(request) &&
  typeof request.method === 'string' &&
  typeof request.host === 'string' &&
  (typeof request.path === 'string' || request.path === null) &&
  isTexts(request.headers) &&
  isTexts(request.query) &&
  (request.token === undefined || isToken(request.token));

/** As the waypoint that read it told it. */
const isToken = (token: unknown): boolean =>
  isRecord(token) &&
  typeof token.principal === 'string' &&
  isListOfTexts(token.audiences) &&
  typeof token.presenter === 'string' &&
  isRecord(token.claims) &&
  Object.entries(token.claims).every(([key, values]) => isListOfTexts(values) && isPath(key));

const isListOfTexts = (values: unknown): boolean => Array.isArray(values) && values.every((value) => typeof value === 'string');

/** Names of a claim from the outermost in, as JSON. */
function isPath(key: string): boolean {
  try {
    return isListOfTexts(JSON.parse(key));
  } catch {
    // It is no JSON, so it names no claim.
    return false;
  }
}

const isTexts = (values: unknown): boolean =>
  isRecord(values) && Object.values(values).every((value) => value === null || typeof value === 'string');

function listOf(value: unknown, field: string): readonly unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new BadCandidate(`${field}: expected a list`);
  if (value.length > MAX_OBJECTS) throw new BadCandidate(`${field}: more than ${MAX_OBJECTS} objects`);
  return value;
}

function placeOf(kind: unknown, meta: { namespace: string; name: string }, at: string, sight: string | undefined) {
  if (typeof kind !== 'string' || !Object.hasOwn(watchedKinds, kind))
    throw new BadCandidate(`${at}: istiod makes nothing of kind ${String(kind).slice(0, 100)}`);
  const known = kind as WatchedKindName;
  const { namespace, name } = meta;
  if (watchedKinds[known].namespaced && namespace === '') throw new BadCandidate(`${at}: ${kind} ${name} has no metadata.namespace`);
  if (sight !== undefined && namespace !== sight)
    throw new BadCandidate(`${at}: ${kind} ${name} is not of namespace ${sight}, and you may rehearse only objects of that one`);
  return { kind: known, namespace, name };
}
