/**
 * What the agent says about one pod where people look: annotations on the pod, which `meshctl status` reads, and events. Written only
 * where something changes; an event once for each sentence.
 */
import type { Log } from '../../common/base/log.ts';
import type { Pod } from './decision.ts';

/** Captured and served (`enabled`), captured only (`pending`); Istio's name. */
export const REDIRECTION = 'ambient.istio.io/redirection';
/** Number of connections that were open before and are not in the mesh yet. */
export const OUTSIDE = 'warren.dev/connections-outside';
/** What is not as it should be with the pod's place in the mesh. */
export const PROBLEM = 'warren.dev/enrolment-problem';

/** What the annotation says: captured and served, captured only, not in the mesh. */
export type Redirection = 'enabled' | 'pending' | undefined;
export type EventType = 'Normal' | 'Warning';
/** null takes the annotation away. */
export type AnnotationChanges = Readonly<Record<string, string | null>>;

export interface PodVoiceParts {
  readonly log: Log;
  /** @throws what the API server answered, except where the pod is gone */
  annotate(pod: Pod, changes: AnnotationChanges): Promise<void>;
  /** A Kubernetes event on the pod. Never throws. */
  event(pod: Pod, type: EventType, message: string): void;
}

/** undefined takes an annotation away. */
type Wanted = Readonly<Record<string, string | undefined>>;

const MAX_NOTES = 32;
const MAX_TEXT = 1024;

export class PodVoice {
  readonly #parts: PodVoiceParts;
  readonly #fields: Readonly<Record<string, unknown>>;
  readonly #noted = new Set<string>();
  #pod: Pod;
  #reported: string | undefined;
  #last: Promise<void> = Promise.resolve();

  constructor(parts: PodVoiceParts, pod: Pod, fields: Readonly<Record<string, unknown>>) {
    this.#parts = parts;
    this.#pod = pod;
    this.#fields = fields;
  }

  get redirection(): Redirection {
    const value = this.#value(REDIRECTION);
    return value === 'enabled' || value === undefined ? value : 'pending';
  }

  update(pod: Pod): void {
    this.#pod = pod;
  }

  /** One change after the other, each on top of what the one before has made. @throws what `PodVoiceParts.annotate` throws */
  annotate(wanted: Wanted): Promise<void> {
    const turn = this.#last.then(() => this.#change(wanted));
    this.#last = turn.catch(() => {
      // Whoever wanted it has been told; the next one compares with what is there.
    });
    return turn;
  }

  async #change(wanted: Wanted): Promise<void> {
    const changes = Object.entries(wanted).flatMap(([name, text]): [string, string | null][] => {
      const value = text === undefined ? null : cut(text);
      return (this.#value(name) ?? null) === value ? [] : [[name, value]];
    });
    if (changes.length === 0) return;
    await this.#parts.annotate(this.#pod, Object.fromEntries(changes));
    this.#pod = withAnnotations(this.#pod, changes);
  }

  /** Nothing of ours is left on the pod. @throws as `annotate` */
  silence = (): Promise<void> => this.annotate({ [REDIRECTION]: undefined, [OUTSIDE]: undefined, [PROBLEM]: undefined });

  /** What nobody can retry away: said once. */
  note(problem: string, type: EventType = 'Warning'): void {
    if (this.#noted.has(problem) || this.#noted.size >= MAX_NOTES) return;
    this.#noted.add(problem);
    if (type === 'Warning') this.#parts.log.warn({ ...this.#fields, error: problem }, 'a pod asks for what it cannot have');
    else this.#parts.log.info({ ...this.#fields, note: problem }, 'about a pod of the mesh');
    this.#parts.event(this.#pod, type, problem);
  }

  /** Once for each problem, until it changes or is over: a retry each five seconds need not be read each time. */
  report(problem: string): void {
    if (problem === this.#reported) return;
    this.#reported = problem;
    this.#parts.log.warn({ ...this.#fields, error: problem }, 'enrolment has a problem');
    this.#parts.event(this.#pod, 'Warning', problem);
    // Best effort: where the API server is the problem, the next success says it.
    this.annotate({ [PROBLEM]: problem }).catch(() => {});
  }

  /** The problem that was reported last; undefined once it is over. */
  get problem(): string | undefined {
    return this.#reported;
  }

  solved(): void {
    this.#reported = undefined;
  }

  #value = (name: string): string | undefined => this.#pod.metadata.annotations?.[name];
}

function withAnnotations(pod: Pod, changes: readonly (readonly [string, string | null])[]): Pod {
  const annotations = { ...pod.metadata.annotations };
  for (const [name, value] of changes) {
    if (value === null) delete annotations[name];
    else annotations[name] = value;
  }
  return { ...pod, metadata: { ...pod.metadata, annotations } };
}

const cut = (text: string): string => (text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT - 1)}…` : text);
