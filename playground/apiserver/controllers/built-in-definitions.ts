/**
 * CustomResourceDefinitions for the Gateway API's and Istio's types, so that whoever looks for them finds them (installation guides do, and
 * istiod). The types are served from our own schemas; a definition that is applied over one of these takes its place, and deleting one takes
 * its type away.
 */
import { timestamp } from '../object.ts';
import type { ResourceType } from '../registry.ts';
import type { Store } from '../store/store.ts';

const GATEWAY_API = {
  'gateway.networking.k8s.io/bundle-version': 'v1.5.1',
  'gateway.networking.k8s.io/channel': 'experimental',
};

export function seedDefinitions(store: Store): void {
  for (const type of store.registry.types) if (type.custom) store.seed(definitionOf(type, timestamp(store.clock.now())));
}

function definitionOf(type: ResourceType, lastTransitionTime: string) {
  const names = {
    plural: type.plural,
    singular: type.singular,
    kind: type.kind,
    listKind: `${type.kind}List`,
    shortNames: [...type.shortNames],
    categories: [...type.categories],
  };
  const condition = (name: string, reason: string) => ({ type: name, status: 'True', reason, message: '', lastTransitionTime });
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${type.plural}.${type.group}`, ...(type.group.startsWith('gateway.') ? { annotations: { ...GATEWAY_API } } : {}) },
    spec: {
      group: type.group,
      scope: type.namespaced ? 'Namespaced' : 'Cluster',
      names,
      conversion: { strategy: 'None' },
      versions: type.versions.map(({ name, columns = [] }) => ({
        name,
        served: true,
        storage: name === type.storageVersion,
        subresources: { status: {} },
        additionalPrinterColumns: columns.map((column) => ({ ...column })),
        schema: {
          openAPIV3Schema: {
            type: 'object',
            description: 'Served from the schema of the playground.',
            'x-kubernetes-preserve-unknown-fields': true,
          },
        },
      })),
    },
    status: {
      acceptedNames: names,
      storedVersions: [type.storageVersion],
      conditions: [condition('NamesAccepted', 'NoConflicts'), condition('Established', 'InitialNamesAccepted')],
    },
  };
}
