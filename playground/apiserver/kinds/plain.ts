/** Kinds with a rule or two: Secrets, ConfigMaps, Namespaces, EndpointSlices, Leases, webhook configurations. */

import { parseIp } from '../../../common/base/address.ts';
import type { FieldCause } from '../api-error.ts';
import { arrayOf, at, equalDeep, isObject, objectOf, stringOf } from '../json.ts';
import { type Behaviour, forbidden, invalid, required, unsupported } from './behaviour.ts';

const DATA_KEY = /^[-._a-zA-Z0-9]{1,253}$/;
const MAX_DATA_BYTES = 1 << 20;

export const secretBehaviour: Behaviour = {
  create: takeStringData,
  update: takeStringData,
  check(secret, old) {
    const data = objectOf(secret.data);
    const causes = checkKeys(['data'], Object.keys(data));
    for (const [key, value] of Object.entries(data)) {
      if (!isBase64(stringOf(value))) causes.push(invalid(['data', key], '', 'must be base64 encoded'));
    }
    if (old && old.type !== secret.type) causes.push(invalid(['type'], secret.type, 'field is immutable'));
    const needed = secret.type === 'kubernetes.io/tls' ? ['tls.crt', 'tls.key'] : [];
    for (const key of needed) if (data[key] === undefined) causes.push(required('data', key));
    return [...causes, ...checkSize(data), ...checkImmutable(secret, old, ['data'])];
  },
};

export const configMapBehaviour: Behaviour = {
  check(map, old) {
    const data = objectOf(map.data);
    const binary = objectOf(map.binaryData);
    const causes = [...checkKeys(['data'], Object.keys(data)), ...checkKeys(['binaryData'], Object.keys(binary))];
    for (const key of Object.keys(binary)) {
      if (key in data) causes.push(invalid(['binaryData', key], key, 'duplicate of key present in data'));
      if (!isBase64(stringOf(binary[key]))) causes.push(invalid(['binaryData', key], '', 'must be base64 encoded'));
    }
    return [...causes, ...checkSize({ ...data, ...binary }), ...checkImmutable(map, old, ['data', 'binaryData'])];
  },
};

export const namespaceBehaviour: Behaviour = {
  create(namespace) {
    const { metadata } = namespace;
    metadata.labels = { ...metadata.labels, 'kubernetes.io/metadata.name': metadata.name };
    namespace.spec = { finalizers: ['kubernetes'], ...objectOf(namespace.spec) };
    namespace.status = { phase: 'Active' };
  },
  update(namespace, old) {
    const { metadata } = namespace;
    metadata.labels = { ...metadata.labels, 'kubernetes.io/metadata.name': metadata.name };
    // Changed through the finalize subresource only.
    namespace.spec = old.spec;
  },
};

export const endpointSliceBehaviour: Behaviour = {
  check(slice, old) {
    const type = stringOf(slice.addressType);
    if (!['IPv4', 'IPv6', 'FQDN'].includes(type)) return [unsupported(['addressType'], type, ['FQDN', 'IPv4', 'IPv6'])];
    const causes: FieldCause[] = old && old.addressType !== type ? [invalid(['addressType'], type, 'field is immutable')] : [];
    arrayOf(slice.endpoints).forEach((endpoint, i) => {
      const addresses = arrayOf(at(endpoint, 'addresses')).map(stringOf);
      if (addresses.length === 0) causes.push(required('endpoints', i, 'addresses'));
      addresses.forEach((address, j) => {
        const ip = parseIp(address);
        const fits = type === 'FQDN' ? ip === undefined : ip?.includes(':') === (type === 'IPv6');
        if (!fits) causes.push(invalid(['endpoints', i, 'addresses', j], address, `must be a valid ${type} address`));
      });
    });
    return causes;
  },
};

export const webhookBehaviour: Behaviour = {
  check(configuration) {
    return arrayOf(configuration.webhooks).flatMap((webhook, i) => {
      const client = objectOf(at(webhook, 'clientConfig'));
      const path = ['webhooks', i, 'clientConfig'];
      const causes: FieldCause[] = [];
      const count = Number(client.url !== undefined) + Number(client.service !== undefined);
      if (count !== 1) causes.push({ ...required(...path), message: 'Required value: exactly one of url or service is required' });
      const { url } = client;
      if (typeof url === 'string' && !url.startsWith('https://'))
        causes.push(invalid([...path, 'url'], url, "'https' is the only allowed URL scheme"));
      const side = at(webhook, 'sideEffects');
      if (side !== 'None' && side !== 'NoneOnDryRun')
        causes.push(unsupported(['webhooks', i, 'sideEffects'], side, ['None', 'NoneOnDryRun']));
      return causes;
    });
  },
};

export const leaseBehaviour: Behaviour = {
  check(lease) {
    const seconds = at(lease, 'spec', 'leaseDurationSeconds');
    return typeof seconds === 'number' && seconds <= 0
      ? [invalid(['spec', 'leaseDurationSeconds'], seconds, 'must be greater than 0')]
      : [];
  },
};

/** `stringData` is written only: it becomes `data`. */
function takeStringData(secret: { [field: string]: unknown }): void {
  const plain = objectOf(secret.stringData);
  delete secret.stringData;
  const names = Object.keys(plain);
  if (names.length === 0) return;
  const encoded = names.map((name) => [name, Buffer.from(stringOf(plain[name])).toString('base64')]);
  secret.data = { ...objectOf(secret.data), ...Object.fromEntries(encoded) };
}

const checkKeys = (path: readonly string[], keys: readonly string[]): FieldCause[] =>
  keys
    .filter((key) => !DATA_KEY.test(key) || key === '.' || key === '..')
    .map((key) => invalid([...path, key], key, "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"));

function checkSize(data: Readonly<Record<string, unknown>>): FieldCause[] {
  const bytes = Object.values(data).reduce<number>((sum, value) => sum + stringOf(value).length, 0);
  return bytes > MAX_DATA_BYTES * 1.4
    ? [{ field: '', reason: 'FieldValueInvalid', message: `Too long: may not be more than ${MAX_DATA_BYTES} bytes` }]
    : [];
}

function checkImmutable(
  object: { [field: string]: unknown },
  old: { [field: string]: unknown } | undefined,
  fields: readonly string[],
): FieldCause[] {
  if (!isObject(old) || old.immutable !== true) return [];
  return fields
    .filter((field) => !equalDeep(object[field], old[field]))
    .map((field) => forbidden([field], 'field is immutable when `immutable` is set'));
}

const isBase64 = (text: string): boolean => text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);
