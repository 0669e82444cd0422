/** What an analyzer is: one of those that look at an object alone, which admission runs too, or one that looks at objects together. */
import type { MeshModelConfig } from '../model/config.ts';
import type { MeshIndex } from '../model/index.ts';
import type { Message } from './messages.ts';
import type { AnalyzedObject, ObjectSet } from './object-set.ts';
import type { Workload } from './workloads.ts';

export interface ObjectCheck {
  readonly name: string;
  readonly doc: string;
  check(object: AnalyzedObject, options: CheckOptions): Iterable<Message>;
}

export interface CheckOptions {
  readonly config: MeshModelConfig;
}

export interface SetCheck {
  readonly name: string;
  readonly doc: string;
  check(world: World): Iterable<Message>;
}

export interface World {
  readonly set: ObjectSet;
  readonly config: MeshModelConfig;
  /** All objects of the set have been given to it. */
  readonly index: MeshIndex;
  readonly workloads: readonly Workload[];
}
