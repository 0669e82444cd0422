/**
 * What the plugin goes by while the agent cannot be asked: which namespaces' and which pods' start would leave the mesh. The plugin knows a
 * pod's namespace, name and UID, and no labels, so namespaces say what holds for a pod without labels of its own, and pods of this node for
 * which it is otherwise are named. (executable/cache.go reads it; what is not in it may be in the mesh.)
 */
import { chmodSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Clock, Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { Labels } from '../../common/decision/label-selector.ts';
import { isFinished, type Pod } from '../enrol/decision.ts';
import { HostFileError, writeHostFile } from '../host/host-file.ts';

const CACHE_VERSION = 1;

/** `in`: a pod without labels of its own belongs to the mesh; `may`: some pods do, by their own labels; `out`: none is known to. */
export type NamespaceMode = 'in' | 'may' | 'out';

export interface CacheContent {
  readonly version: typeof CACHE_VERSION;
  /** How long the plugin waits for the agent's answer. */
  readonly askTimeoutMs: number;
  readonly excludeNamespaces: readonly string[];
  readonly namespaces: Readonly<Record<string, NamespaceMode>>;
  /** By UID. */
  readonly pods: Readonly<Record<string, 'in' | 'out'>>;
}

export interface CacheSources {
  readonly askTimeoutMs: number;
  readonly excludeNamespaces: readonly string[];
  readonly namespaces: Iterable<readonly [name: string, labels: Labels]>;
  /** Of this node. */
  readonly pods: Iterable<Pod>;
  /** Whether the pod belongs to the mesh. */
  enrols(pod: Pod): boolean;
}

// A cluster has thousands of namespaces at most, a node hundreds of pods. What does not fit is left out, and so may be in the mesh.
const MAX_NAMESPACES = 20_000;
const MAX_PODS = 4_000;

export function describeNode({ askTimeoutMs, excludeNamespaces, namespaces, pods, enrols }: CacheSources): CacheContent {
  const modes = new Map<string, NamespaceMode>();
  for (const [name] of namespaces) modes.set(name, enrols({ metadata: { namespace: name } }) ? 'in' : 'out');
  const exceptions = new Map<string, 'in' | 'out'>();
  for (const pod of pods) {
    const { uid, namespace = '' } = pod.metadata;
    if (uid === undefined || isFinished(pod) || pod.spec?.hostNetwork) continue;
    const inside = enrols(pod);
    if (inside === (modes.get(namespace) === 'in')) continue;
    exceptions.set(uid, inside ? 'in' : 'out');
    // Its owner may make another one like it, under a UID that nobody knows yet.
    if (inside) modes.set(namespace, 'may');
  }
  return {
    version: CACHE_VERSION,
    askTimeoutMs,
    excludeNamespaces,
    namespaces: Object.fromEntries(bounded(modes, MAX_NAMESPACES)),
    pods: Object.fromEntries(bounded(exceptions, MAX_PODS)),
  };
}

/** In order, so that equal content is equal text. */
const bounded = <T>(entries: ReadonlyMap<string, T>, limit: number): [string, T][] =>
  [...entries].sort(([a], [b]) => (a < b ? -1 : 1)).slice(0, limit);

export interface CacheFileParts {
  readonly path: string;
  readonly clock: Clock;
  readonly log: Log;
  describe(): CacheContent;
}

// Many pods change at once when a node starts; a pod that is lost to a power cut within this time is asked about by its namespace.
const COLLECT_MS = 250;

export class CacheFile {
  readonly #parts: CacheFileParts;
  #timer: Timer | undefined;
  #text: string | undefined;
  #dirty = true;
  #failed: string | undefined;
  #stopped = false;

  constructor(parts: CacheFileParts) {
    this.#parts = parts;
  }

  /** Something that it tells may have changed. */
  changed(): void {
    this.#dirty = true;
    if (this.#stopped || this.#timer) return;
    this.#timer = this.#parts.clock.after(COLLECT_MS, () => {
      this.#timer = undefined;
      this.#tryWrite();
    });
  }

  /** Writes it now unless it is there as it should be. @returns the path where it was written. @throws {HostFileError} */
  ensure(): string[] {
    const { path, describe } = this.#parts;
    const text = this.#text === undefined || this.#dirty ? `${JSON.stringify(describe())}\n` : this.#text;
    this.#dirty = false;
    if (text === this.#text && readText(path) === text) return [];
    const folder = dirname(path);
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      chmodSync(folder, 0o700);
    } catch (error) {
      throw new HostFileError(folder, error);
    }
    // Who belongs to the mesh is nobody's business but root's.
    try {
      writeHostFile(path, text, 0o600);
    } catch (error) {
      this.#dirty = true;
      throw error;
    }
    // An old one is replaced at each change; only the first is news.
    const isNew = this.#text === undefined;
    this.#text = text;
    return isNew ? [path] : [];
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  /** With its folder. */
  remove(): void {
    this.stop();
    rmSync(dirname(this.#parts.path), { recursive: true, force: true });
  }

  #tryWrite(): void {
    try {
      this.ensure();
      this.#failed = undefined;
    } catch (error) {
      const problem = errorMessage(error);
      if (problem !== this.#failed)
        this.#parts.log.error({ error: problem }, 'what the CNI plugin goes by while the agent is away is out of date');
      this.#failed = problem;
    }
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Somebody removed it.
    return undefined;
  }
}
