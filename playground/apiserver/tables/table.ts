/** `kubectl get`'s answers: rows of cells, made here so that kubectl needs to know nothing about a type. */

import type { KubeObject } from '../object.ts';
import type { PrinterColumn, ResourceType, ServedVersion } from '../registry.ts';
import { inVersion } from '../store/rules.ts';
import { builtInColumns, type Column } from './columns.ts';
import { age } from './duration.ts';
import { compileJsonPath } from './json-path.ts';

export type IncludeObject = 'None' | 'Metadata' | 'Object';

export interface TableMetadata {
  readonly resourceVersion?: string;
  readonly continue?: string;
  readonly remainingItemCount?: number;
}

const compiled = new WeakMap<ServedVersion, readonly Column[]>();

export function tableOf(
  type: ResourceType,
  version: ServedVersion,
  objects: readonly KubeObject[],
  options: { readonly now: number; readonly includeObject: IncludeObject; readonly metadata?: TableMetadata },
): object {
  const columns = columnsOf(type, version);
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata: options.metadata ?? {},
    columnDefinitions: columns.map(({ name, type: cellType = 'string', priority = 0, description = '', format = '' }) => ({
      name,
      type: cellType,
      format,
      description,
      priority,
    })),
    rows: objects.map((object) => ({
      cells: columns.map((column) => column.cell(object, options.now)),
      ...(options.includeObject === 'None' ? {} : { object: rowObject(object, type, version, options.includeObject) }),
    })),
  };
}

export function partialMetadata(object: KubeObject): object {
  return { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata: object.metadata };
}

function rowObject(object: KubeObject, type: ResourceType, version: ServedVersion, include: IncludeObject): object {
  return include === 'Object' ? inVersion(object, type, version) : partialMetadata(object);
}

function columnsOf(type: ResourceType, version: ServedVersion): readonly Column[] {
  let columns = compiled.get(version);
  if (!columns) {
    columns = version.columns
      ? [nameColumn, ...version.columns.map(pathColumn)]
      : (builtInColumns.get(`${type.kind}.${type.group}`) ?? [nameColumn, ageColumn]);
    compiled.set(version, columns);
  }
  return columns;
}

const nameColumn: Column = { name: 'Name', format: 'name', cell: (object) => object.metadata.name };
const ageColumn: Column = { name: 'Age', cell: (object, now) => age(object.metadata.creationTimestamp, now) };

function pathColumn({ name, type, jsonPath, priority, description, format }: PrinterColumn): Column {
  const find = compileJsonPath(jsonPath);
  return {
    name,
    type: type === 'date' ? 'string' : type,
    ...(priority === undefined ? {} : { priority }),
    ...(description === undefined ? {} : { description }),
    ...(format === undefined ? {} : { format }),
    cell(object, now) {
      const values = find(object);
      if (type === 'date') return age(values[0], now);
      if (values.length === 0) return type === 'string' ? '' : null;
      if (type !== 'string') return values[0];
      const [only] = values;
      if (values.length === 1) return typeof only === 'object' ? JSON.stringify(only) : String(only);
      return values.map((value) => (typeof value === 'object' ? JSON.stringify(value) : String(value))).join(',');
    },
  };
}
