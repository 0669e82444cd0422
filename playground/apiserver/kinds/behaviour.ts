/** What a kind adds to the store's general course: values that depend on other objects, rules that a schema cannot say, and its way to be deleted. */
import type { Clock } from '../../../common/base/clock.ts';
import type { FieldCause } from '../api-error.ts';
import type { KubeObject } from '../object.ts';
import { joinPath, shown } from '../schemas/causes.ts';

export interface KindContext {
  readonly clock: Clock;
  readonly random: () => number;
  find(kind: string, name: string, namespace?: string): KubeObject | undefined;
  each(kind: string, namespace?: string): Iterable<KubeObject>;
}

export interface Behaviour {
  /** Completes a new object before it is checked. May throw an ApiError. */
  create?(object: KubeObject, context: KindContext): void;
  /** Completes an update before it is checked; `old` is frozen. */
  update?(object: KubeObject, old: KubeObject, context: KindContext): void;
  check?(object: KubeObject, old: KubeObject | undefined, context: KindContext): FieldCause[];
}

export const required = (...path: (string | number)[]): FieldCause => ({
  field: joinPath(path),
  reason: 'FieldValueRequired',
  message: 'Required value',
});

export const invalid = (path: readonly (string | number)[], value: unknown, why: string): FieldCause => ({
  field: joinPath(path),
  reason: 'FieldValueInvalid',
  message: `Invalid value: ${shown(value)}: ${why}`,
});

export const unsupported = (path: readonly (string | number)[], value: unknown, allowed: readonly string[]): FieldCause => ({
  field: joinPath(path),
  reason: 'FieldValueNotSupported',
  message: `Unsupported value: ${shown(value)}: supported values: ${allowed.map((item) => JSON.stringify(item)).join(', ')}`,
});

export const duplicate = (path: readonly (string | number)[], value: unknown): FieldCause => ({
  field: joinPath(path),
  reason: 'FieldValueDuplicate',
  message: `Duplicate value: ${shown(value)}`,
});

export const forbidden = (path: readonly (string | number)[], why: string): FieldCause => ({
  field: joinPath(path),
  reason: 'FieldValueForbidden',
  message: `Forbidden: ${why}`,
});
