/** Everything that is made of the objects: resources for proxies, statuses to write, problems to show; kept as it was made last, told as it changes. */
import { errorMessage } from '../../common/base/errors.ts';
import { AutoAddresses } from './auto-addresses.ts';
import type { Condition, ReporterName, StatusSlot, StatusWrite } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import { ObjectStatusTable, type StatusKind } from './object-status.ts';
import { type Problem, ProblemList } from './problems.ts';
import { type Resource, type ResourceChanges, ResourceTable } from './resources.ts';
import { StatusTable } from './status-table.ts';
import { type WaypointChanges, WaypointTables } from './waypoint-tables.ts';

export interface MeshChanges {
  readonly address: ResourceChanges;
  readonly authorization: ResourceChanges;
  /** What waypoints are told beside that, each of its own. */
  readonly waypoints: readonly WaypointChanges[];
  readonly statuses: readonly StatusWrite[];
  /** Writes that were handed out before and are not to be made any more: see StatusTable. `statuses` come after them. */
  readonly settled: readonly StatusSlot[];
  /** What is wrong with objects and was not before. */
  readonly problems: readonly Problem[];
  /** Another call has more. */
  readonly more: boolean;
}

export class Outputs {
  readonly addresses = new ResourceTable();
  readonly authorizations = new ResourceTable();
  readonly waypoints = new WaypointTables();
  readonly statuses = new StatusTable();
  readonly objectStatuses = new ObjectStatusTable();
  readonly autoAddresses: AutoAddresses | undefined;
  readonly problems = new ProblemList();
  /** What could not be translated. */
  readonly #broken = new Set<string>();
  /** Names of the resources that each source made last. */
  readonly #made = new Map<string, readonly string[]>();

  constructor({ autoAddresses }: MeshModelConfig) {
    this.autoAddresses = autoAddresses && new AutoAddresses(autoAddresses);
  }

  /** Everything that changed since the last call. */
  take(): Omit<MeshChanges, 'more'> {
    return {
      address: this.addresses.take(),
      authorization: this.authorizations.take(),
      waypoints: this.waypoints.take(),
      settled: [...this.statuses.takeSettled(), ...this.objectStatuses.takeSettled(), ...(this.autoAddresses?.takeSettled() ?? [])],
      statuses: [...this.statuses.take(), ...this.objectStatuses.take(), ...(this.autoAddresses?.take() ?? [])],
      problems: this.problems.takeFresh(),
    };
  }

  /** What an object's status says now, so that only what differs is written. */
  observe(reporter: ReporterName, key: string, object: unknown): void {
    if (object === undefined) this.statuses.forget(reporter, key);
    else this.statuses.observe(reporter, key, object);
  }

  observeWhole(kind: StatusKind, key: string, object: unknown): void {
    if (object === undefined) this.objectStatuses.forget(kind, key);
    else this.objectStatuses.observe(kind, key, object);
  }

  /** An object's one condition; what it says that is not as written is a problem too. */
  want(kind: 'VirtualService' | 'DestinationRule' | 'Telemetry', key: string, condition: Condition | undefined): void {
    this.statuses.want(kind, key, condition ? [condition] : []);
    this.problems.set(`${kind} ${key}`, condition && condition.reason !== 'Accepted' ? [condition.message] : [], 'status');
  }

  /** Replaces what a source made before. */
  publish(table: ResourceTable, source: string, made: readonly Resource[]): void {
    const present = new Set(made.map(({ name }) => name));
    for (const name of this.#made.get(source) ?? []) if (!present.has(name)) table.delete(name);
    for (const resource of made) table.set(resource);
    if (made.length > 0) this.#made.set(source, [...present]);
    else this.#made.delete(source);
  }

  /** One object that breaks the translation must not keep the others from being translated; what it was before stays published. */
  guard(about: string, run: () => void): void {
    try {
      run();
      if (this.#broken.delete(about)) this.problems.set(`translation of ${about}`, []);
    } catch (error) {
      this.#broken.add(about);
      this.problems.set(`translation of ${about}`, [errorMessage(error)]);
    }
  }
}
