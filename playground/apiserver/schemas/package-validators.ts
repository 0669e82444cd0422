/**
 * The validators of `@kubernetes-models/gateway-api` and `@kubernetes-models/istio`. A kind's validator is loaded when its first object
 * comes: loading all of them takes longer than the API server takes to start. The packages say `import` only, so they are resolved first
 * and required by file, which is synchronous.
 */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { parseIp } from '../../../common/base/address.ts';
import type { FieldCause } from '../api-error.ts';
import { arrayOf, at, isObject, objectOf, stringOf } from '../json.ts';
import { invalid } from '../kinds/behaviour.ts';
import type { KubeObject } from '../object.ts';
import { NEWER_VALUES } from './annotations.ts';
import { type SchemaError, schemaCauses, valueAt } from './causes.ts';

type Check = (object: KubeObject) => readonly FieldCause[];

interface Model {
  validate(): void;
}

const require = createRequire(import.meta.url);

export const checkGatewayApi = (apiVersion: string, kind: string): Check =>
  packageCheck('@kubernetes-models/gateway-api', apiVersion, kind);

export const checkIstio = (apiVersion: string, kind: string): Check => packageCheck('@kubernetes-models/istio', apiVersion, kind);

/** The version that the package knows; TCPRoute and UDPRoute are served as v1 as well, with the fields of v1alpha2. */
export function modelVersion(apiVersion: string, kind: string): string {
  return (kind === 'TCPRoute' || kind === 'UDPRoute') && apiVersion === 'gateway.networking.k8s.io/v1'
    ? 'gateway.networking.k8s.io/v1alpha2'
    : apiVersion;
}

function packageCheck(packageName: string, apiVersion: string, kind: string): Check {
  let construct: (new (data: unknown) => Model) | undefined;
  const known = modelVersion(apiVersion, kind);
  return (object) => {
    construct ??= load(packageName, known, kind);
    // The package's own rules for metadata know nothing of what this server adds to it.
    const { metadata: _, ...rest } = object;
    try {
      new construct({ ...rest, apiVersion: known, metadata: { name: object.metadata.name } }).validate();
      return extra[kind]?.(object) ?? [];
    } catch (error) {
      return schemaCauses(errorsOf(error).filter(isOurs(object)), object);
    }
  };
}

/** Rules of the definitions' schemas that the packages lost. */
const extra: Readonly<Record<string, Check>> = {
  Gateway: (object) =>
    arrayOf(at(object, 'spec', 'addresses')).flatMap((address, i) => {
      const { type = 'IPAddress', value } = objectOf(address);
      const bad = type === 'IPAddress' && value !== undefined && parseIp(stringOf(value)) === undefined;
      return bad ? [invalid(['spec', 'addresses', i, 'value'], value, 'must be an IP address')] : [];
    }),
};

const isOurs =
  (object: KubeObject) =>
  ({ keyword, instancePath }: SchemaError): boolean =>
    keyword !== 'enum' || !NEWER_VALUES.has(valueAt(object, instancePath));

function load(packageName: string, apiVersion: string, kind: string): new (data: unknown) => Model {
  const file = fileURLToPath(import.meta.resolve(`${packageName}/${apiVersion}/${kind}`));
  const exports = require(file) as Record<string, new (data: unknown) => Model>;
  const model = exports[kind];
  if (!model) throw new Error(`${packageName} has no ${apiVersion} ${kind}`);
  return model;
}

function errorsOf(error: unknown): readonly SchemaError[] {
  if (isObject(error) && Array.isArray(error.errors)) return error.errors as SchemaError[];
  throw error;
}
