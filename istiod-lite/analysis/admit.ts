/**
 * Whether an object may be stored, judged with the code of analysis against what istiod knows. Refused is what no later object could make right;
 * of the rest the user is told (decision 8). What was already wrong with the object before its change is no reason to refuse the change: it
 * got in while nobody looked, and whoever labels it, or takes a finalizer away, is not to blame.
 */
import type { KubeObject } from '../../common/client/kube-api.ts';
import type { MeshModelConfig } from '../model/config.ts';
import type { Finding } from '../model/findings.ts';
import { at, isRecord, text } from '../model/objects.ts';
import type { WatchedKindName } from '../model/watched-kinds.ts';
import { objectChecks } from './analyzers.ts';
import { judge } from './judge.ts';
import { byGravity, type Message } from './messages.ts';
import { ObjectSet, watchedKind } from './object-set.ts';

export interface AdmissionView {
  findings(kind: WatchedKindName, object: unknown): Finding[];
}

export interface Verdict {
  readonly refused: readonly Message[];
  readonly warnings: readonly Message[];
}

export interface AdmitOptions {
  readonly config: MeshModelConfig;
  /** Refuses what is accepted with a warning as not enforced as it is written, too. */
  readonly strict: boolean;
  /** Whether the object is ours to judge; each is where it is missing. */
  readonly inScope?: (kind: string, object: KubeObject) => boolean;
}

/** @param before the object as it is stored; undefined for a new one */
export function admit(object: unknown, before: unknown, view: AdmissionView, options: AdmitOptions): Verdict {
  const kind = text(at(object, 'kind'));
  if (options.inScope && isKubeObject(object) && !options.inScope(kind, object)) return { refused: [], warnings: [] };
  const known = new Set(before === undefined || before === null ? [] : messagesOf(before, view, options).map(identity));
  const messages = messagesOf(object, view, options).sort(byGravity);
  const refusable = ({ type, origin }: Message): boolean =>
    !UNREFUSED.has(origin.kind) && (type.final || (options.strict && type.code.startsWith('WRN') && type.level !== 'Info'));
  const refused = messages.filter((each) => refusable(each) && !known.has(identity(each)));
  return { refused, warnings: messages.filter((each) => !refused.includes(each) && each.type.level !== 'Info') };
}

const isKubeObject = (object: unknown): object is KubeObject => isRecord(at(object, 'metadata'));

/** Kubernetes' own, which a mesh has no business to hold up. */
const UNREFUSED: ReadonlySet<string> = new Set(['Service', 'Namespace']);

function messagesOf(object: unknown, view: AdmissionView, { config }: AdmitOptions): Message[] {
  const set = new ObjectSet();
  set.add(object, { defaultNamespace: '' });
  const [one] = set.values();
  if (!one) return [];
  const kind = watchedKind(one);
  return [
    ...(kind ? judge(one.origin, view.findings(kind, one.object)) : []),
    ...objectChecks.flatMap(({ check }) => [...check(one, { config })]),
  ];
}

const identity = ({ type, text }: Message): string => `${type.code} ${text}`;
