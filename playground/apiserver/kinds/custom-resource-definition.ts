/** CustomResourceDefinitions: names that fit together, one stored version, schemas that compile; served at once, so established at once. */
import { ApiError, type FieldCause } from '../api-error.ts';
import { arrayOf, at, isObject, objectOf, stringOf } from '../json.ts';
import type { KubeObject } from '../object.ts';
import { timestamp } from '../object.ts';
import { schemaProblems } from '../schemas/custom.ts';
import { compileJsonPath } from '../tables/json-path.ts';
import { type Behaviour, invalid, type KindContext, required, unsupported } from './behaviour.ts';
import { isLabel, isSubdomain } from './names.ts';

export const customResourceDefinitionBehaviour: Behaviour = {
  create: complete,
  update(crd, old, context) {
    complete(crd, context);
    crd.status = {
      ...objectOf(crd.status),
      storedVersions: at(old, 'status', 'storedVersions') ?? at(crd, 'status', 'storedVersions'),
    };
  },
  check(crd, old) {
    const spec = objectOf(crd.spec);
    const { group, names, scope } = spec;
    const plural = stringOf(at(names, 'plural'));
    const causes: FieldCause[] = [];
    if (crd.metadata.name !== `${plural}.${stringOf(group)}`) {
      causes.push(invalid(['metadata', 'name'], crd.metadata.name, 'must be spec.names.plural+"."+spec.group'));
    }
    if (!isSubdomain(stringOf(group))) causes.push(invalid(['spec', 'group'], group, 'must be a DNS-1123 subdomain'));
    if (!isLabel(plural)) causes.push(invalid(['spec', 'names', 'plural'], plural, 'must be a DNS-1123 label'));
    if (!/^[A-Za-z][A-Za-z0-9]*$/.test(stringOf(at(names, 'kind'))))
      causes.push(invalid(['spec', 'names', 'kind'], at(names, 'kind'), 'must consist of letters and digits'));
    if (scope !== 'Namespaced' && scope !== 'Cluster') causes.push(unsupported(['spec', 'scope'], scope, ['Cluster', 'Namespaced']));
    if (old && at(old, 'spec', 'scope') !== scope) causes.push(invalid(['spec', 'scope'], scope, 'field is immutable'));
    const versions = arrayOf(spec.versions);
    if (versions.length === 0) causes.push(required('spec', 'versions'));
    if (versions.filter((version) => at(version, 'storage') === true).length !== 1) {
      causes.push(invalid(['spec', 'versions'], versions, 'must have exactly one version marked as storage version'));
    }
    versions.forEach((version, i) => {
      causes.push(...checkVersion(['spec', 'versions', i], objectOf(version)));
    });
    return causes;
  },
};

function checkVersion(path: readonly (string | number)[], version: Record<string, unknown>): FieldCause[] {
  const schema = at(version, 'schema', 'openAPIV3Schema');
  if (!isObject(schema)) return [{ ...required(...path, 'schema', 'openAPIV3Schema'), message: 'Required value: schemas are required' }];
  const causes: FieldCause[] = [];
  if (schema.type !== 'object')
    causes.push(invalid([...path, 'schema', 'openAPIV3Schema', 'type'], schema.type, 'must be object at the root'));
  for (const problem of schemaProblems(schema)) causes.push(invalid([...path, 'schema', 'openAPIV3Schema'], schema, problem));
  arrayOf(version.additionalPrinterColumns).forEach((column, i) => {
    const text = stringOf(at(column, 'jsonPath'));
    try {
      compileJsonPath(text);
    } catch (error) {
      causes.push(
        invalid([...path, 'additionalPrinterColumns', i, 'jsonPath'], text, error instanceof Error ? error.message : String(error)),
      );
    }
  });
  return causes;
}

function complete(crd: KubeObject, context: KindContext): void {
  const names = objectOf(at(crd, 'spec', 'names'));
  const kind = stringOf(names.kind);
  names.singular ??= kind.toLowerCase();
  names.listKind ??= `${kind}List`;
  const lastTransitionTime = timestamp(context.clock.now());
  const condition = (type: string, reason: string, message: string) => ({ type, status: 'True', reason, message, lastTransitionTime });
  const stored = arrayOf(at(crd, 'spec', 'versions')).filter((version) => at(version, 'storage') === true);
  const conversion = at(crd, 'spec', 'conversion', 'strategy');
  if (conversion === 'Webhook') {
    throw ApiError.invalid(
      { group: 'apiextensions.k8s.io', plural: 'customresourcedefinitions', kind: 'CustomResourceDefinition' },
      crd.metadata.name,
      [unsupported(['spec', 'conversion', 'strategy'], conversion, ['None'])],
    );
  }
  crd.status = {
    conditions: [
      condition('NamesAccepted', 'NoConflicts', 'no conflicts found'),
      condition('Established', 'InitialNamesAccepted', 'the initial names have been accepted'),
    ],
    acceptedNames: names,
    storedVersions: stored.map((version) => stringOf(at(version, 'name'))),
  };
}
