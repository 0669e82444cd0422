/** Serves the types of CustomResourceDefinitions: as soon as one is stored its type is there, with its objects gone when it is deleted. */
import { arrayOf, at, equalDeep, isObject, objectOf, stringOf } from '../json.ts';
import type { KubeObject } from '../object.ts';
import type { PrinterColumn, ResourceType, ScalePaths, ServedVersion } from '../registry.ts';
import { customSchema } from '../schemas/custom.ts';
import type { Definitions } from '../schemas/schema.ts';
import type { Store } from '../store/store.ts';

export function serveCustomTypes(store: Store, definitions: Definitions): void {
  const { registry } = store;
  const crds = store.typeOf('CustomResourceDefinition');
  store.observe((type, { type: kind, object, previous }) => {
    if (type !== crds) return;
    const group = stringOf(at(object, 'spec', 'group'));
    const plural = stringOf(at(object, 'spec', 'names', 'plural'));
    if (kind !== 'DELETED') {
      // A change of status or labels makes nothing anew, and leaves a built-in type its own schema.
      if (previous && equalDeep(previous.spec, object.spec)) return;
      registry.register(customType(object, definitions));
      return;
    }
    const custom = registry.byPlural(group, plural);
    if (!custom) return;
    for (const each of [...store.collection(custom).values()]) store.erase(custom, each);
    registry.unregister(group, plural);
  });
}

function customType(crd: KubeObject, definitions: Definitions): ResourceType {
  const spec = objectOf(crd.spec);
  const names = objectOf(spec.names);
  const kind = stringOf(names.kind);
  const versions = arrayOf(spec.versions).map(objectOf);
  const served = versions.filter((version) => version.served === true);
  const scale = served.map((version) => at(version, 'subresources', 'scale')).find(isObject);
  return {
    group: stringOf(spec.group),
    kind,
    plural: stringOf(names.plural),
    singular: stringOf(names.singular) || kind.toLowerCase(),
    shortNames: arrayOf(names.shortNames).map(stringOf),
    categories: arrayOf(names.categories).map(stringOf),
    namespaced: spec.scope === 'Namespaced',
    custom: true,
    storageVersion: stringOf(versions.find((version) => version.storage === true)?.name),
    status: served.some((version) => isObject(at(version, 'subresources', 'status'))),
    versions: served.map((version): ServedVersion => {
      const { schema, check } = customSchema(at(version, 'schema', 'openAPIV3Schema'), definitions);
      return { name: stringOf(version.name), schema, check, columns: columns(version.additionalPrinterColumns) };
    }),
    ...(scale ? { scale: scale as unknown as ScalePaths } : {}),
  };
}

function columns(defined: unknown): PrinterColumn[] {
  const list = arrayOf(defined) as PrinterColumn[];
  return list.length > 0 ? [...list] : [{ name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' }];
}
