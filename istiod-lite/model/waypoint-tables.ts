/**
 * What each waypoint is told beside addresses: routes of the services that name it, and policies that concern it. Each waypoint has tables of
 * its own, as one policy may mean a service at the one and everything at another. A waypoint is told as soon as it is named, long before it
 * is ready: its first connection must already find its policies.
 */
import { type Resource, type ResourceChanges, ResourceTable, type WaypointTableName, waypointTableNames } from './resources.ts';

export type WaypointChanges = Readonly<Record<WaypointTableName, ResourceChanges>> & {
  /** `namespace/name` of the Gateway. */
  readonly waypoint: string;
};

export type WaypointResources = Readonly<Record<WaypointTableName, readonly Resource[]>>;

/** What one source made for each waypoint. */
export type MadeForWaypoints = ReadonlyMap<string, readonly Resource[]>;

type Tables = Readonly<Record<WaypointTableName, ResourceTable>>;

export class WaypointTables {
  readonly #tables = new Map<string, Tables>();
  /** Waypoint and resource names of each source, by table. */
  readonly #made = eachTable(() => new Map<string, MadeNames>());
  readonly #touched = new Set<string>();

  /** Replaces what sources made before. All at once, as one may give up a name that another one takes over. */
  publish(table: WaypointTableName, made: ReadonlyMap<string, MadeForWaypoints>): void {
    for (const [source, resources] of made) {
      for (const [waypoint, names] of this.#made[table].get(source) ?? []) {
        const present = new Set((resources.get(waypoint) ?? []).map(({ name }) => name));
        for (const name of names) if (!present.has(name)) this.#of(waypoint)[table].delete(name);
      }
    }
    for (const [source, resources] of made) {
      for (const [waypoint, items] of resources) for (const resource of items) this.#of(waypoint)[table].set(resource);
      const names = [...resources].map(([waypoint, items]) => [waypoint, items.map(({ name }) => name)] as const);
      if (names.length > 0) this.#made[table].set(source, new Map(names));
      else this.#made[table].delete(source);
    }
  }

  get(waypoint: string): WaypointResources {
    const tables = this.#tables.get(waypoint);
    return eachTable((name) => [...(tables?.[name].values() ?? [])]);
  }

  /** Waypoints that are told something. */
  keys(): IterableIterator<string> {
    return this.#tables.keys();
  }

  /** Net changes since the last call, for those waypoints that have any. */
  take(): WaypointChanges[] {
    const changes: WaypointChanges[] = [];
    for (const waypoint of this.#touched) {
      const tables = this.#of(waypoint);
      const taken = eachTable((name) => tables[name].take());
      if (waypointTableNames.some((name) => !isEmpty(taken[name]))) changes.push({ waypoint, ...taken });
      if (waypointTableNames.every((name) => tables[name].size === 0)) this.#tables.delete(waypoint);
    }
    this.#touched.clear();
    return changes;
  }

  #of(waypoint: string): Tables {
    this.#touched.add(waypoint);
    const tables = this.#tables.get(waypoint) ?? eachTable(() => new ResourceTable());
    this.#tables.set(waypoint, tables);
    return tables;
  }
}

export const eachTable = <T>(make: (name: WaypointTableName) => T): Record<WaypointTableName, T> =>
  Object.fromEntries(waypointTableNames.map((name) => [name, make(name)])) as Record<WaypointTableName, T>;

type MadeNames = ReadonlyMap<string, readonly string[]>;

const isEmpty = ({ changed, removed }: ResourceChanges): boolean => changed.length === 0 && removed.length === 0;
