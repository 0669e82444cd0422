/** Which conditions users' objects show, which they should, and what there is to write about the difference. */
import {
  type Condition,
  conditionsToWrite,
  type ReporterName,
  readConditions,
  reporters,
  type StatusSlot,
  type StatusWrite,
  sameCondition,
} from './conditions.ts';
import { allKinds, statusPath } from './watched-kinds.ts';

interface Entry {
  readonly shown: readonly Condition[];
  wanted: readonly Condition[];
  /** What was last handed out for writing and has not been seen on the object yet. */
  written: readonly Condition[] | undefined;
}

export class StatusTable {
  readonly #entries = new Map<string, Entry>();
  readonly #pending = new Set<string>();
  readonly #settled: StatusSlot[] = [];

  /** Takes the conditions that the object shows now; a write that has arrived, or that somebody undid, is forgotten. */
  observe(reporter: ReporterName, key: string, object: unknown): void {
    const id = `${reporter}/${key}`;
    const shown = readConditions(reporter, object);
    const entry = this.#entries.get(id);
    if (entry && sameList(entry.shown, shown)) return;
    this.#settle(id, entry);
    this.#entries.set(id, { shown, wanted: entry?.wanted ?? [], written: undefined });
    this.#pending.add(id);
  }

  forget(reporter: ReporterName, key: string): void {
    const id = `${reporter}/${key}`;
    this.#settle(id, this.#entries.get(id));
    this.#entries.delete(id);
    this.#pending.delete(id);
  }

  /** What was handed out and is not to be written any more, unless `take` hands it out anew: another replica did, or the object is gone. */
  takeSettled(): StatusSlot[] {
    return this.#settled.splice(0);
  }

  #settle(id: string, entry: Entry | undefined): void {
    if (entry?.written) this.#settled.push(statusWrite(id, []));
  }

  want(reporter: ReporterName, key: string, conditions: readonly Condition[]): void {
    const id = `${reporter}/${key}`;
    const entry = this.#entries.get(id);
    if (!entry) return;
    entry.wanted = conditions;
    this.#pending.add(id);
  }

  take(): StatusWrite[] {
    const writes: StatusWrite[] = [];
    for (const id of this.#pending) {
      const entry = this.#entries.get(id);
      if (!entry) continue;
      const conditions = conditionsToWrite(entry.shown, entry.wanted);
      if (!conditions || (entry.written && sameList(entry.written, conditions))) continue;
      entry.written = conditions;
      writes.push(statusWrite(id, conditions));
    }
    this.#pending.clear();
    return writes;
  }
}

function statusWrite(id: string, conditions: readonly Condition[]): StatusWrite {
  const [reporter, ...key] = id.split('/') as [ReporterName, ...string[]];
  const { kind, fieldManager } = reporters[reporter];
  // Objects of the cluster have a name and no namespace.
  const [namespace = '', name = ''] = key.length > 1 ? key : ['', ...key];
  return {
    kind,
    apiVersion: allKinds[kind].apiVersion,
    path: statusPath(kind, namespace, name),
    namespace,
    name,
    fieldManager,
    conditions,
  };
}

const sameList = (a: readonly Condition[], b: readonly Condition[]): boolean =>
  a.length === b.length && a.every((condition) => b.some((other) => sameCondition(condition, other)));
