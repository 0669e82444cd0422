/**
 * Kubernetes' protobuf bodies, which kubectl's and client-go's typed clients send: read into the JSON form that everything else here
 * speaks. Answers are JSON, which these clients accept. Field numbers are in `schemas/protobuf.txt`, loaded with the first such body.
 */
import { readFileSync } from 'node:fs';
import { ApiError } from '../api-error.ts';
import { isObject, type JsonObject } from '../json.ts';
import type { SchemaNode } from '../schemas/schema.ts';

interface Field {
  readonly name: string;
  readonly type: string;
  readonly repeated: boolean;
  readonly map: boolean;
}

type Message = ReadonlyMap<number, Field>;

const MAGIC = Buffer.from('k8s\0');
const MAX_DEPTH = 40;

/** Zero or false in these is "not set": Go writes them without knowing the difference. */
const ZERO_IS_UNSET = new Set(
  `timeoutSeconds periodSeconds successThreshold failureThreshold initialDelaySeconds nodePort hostPort generation observedGeneration
  targetPort healthCheckNodePort minReadySeconds paused stdin stdinOnce tty hostIPC hostNetwork hostPID readOnly publishNotReadyAddresses`.split(
    /\s+/,
  ),
);

let messages: Map<string, Message> | undefined;

/**
 * @param schemaOf the schema of a type, which tells which of its Go structs are embedded
 * @throws {ApiError} BadRequest, UnsupportedMediaType for types without field numbers
 */
export function decodeProtobuf(bytes: Buffer, schemaOf: (apiVersion: string, kind: string) => SchemaNode | undefined): JsonObject {
  if (!bytes.subarray(0, 4).equals(MAGIC)) throw ApiError.badRequest('the body does not start as Kubernetes protobuf does');
  const envelope = fields(bytes.subarray(4));
  const typeMeta = fields(lastBytes(envelope, 1));
  const apiVersion = lastBytes(typeMeta, 1).toString('utf8');
  const kind = lastBytes(typeMeta, 2).toString('utf8');
  const name = messageName(apiVersion, kind);
  messages ??= loadMessages();
  if (!messages.has(name))
    throw new ApiError(415, 'UnsupportedMediaType', `the playground does not read ${apiVersion} ${kind} in protobuf; send JSON`);
  const object = decodeMessage(lastBytes(envelope, 2), name, schemaOf(apiVersion, kind), 0);
  return { apiVersion, kind, ...(isObject(object) ? object : {}) };
}

function messageName(apiVersion: string, kind: string): string {
  if (/^(Delete|Create|Update|Patch|List|Get)Options$/.test(kind)) return `meta.v1.${kind}`;
  const [group = '', version] = apiVersion.includes('/') ? apiVersion.split('/') : ['core', apiVersion];
  return `${group.split('.')[0]}.${version}.${kind}`;
}

function loadMessages(): Map<string, Message> {
  const loaded = new Map<string, Message>();
  for (const line of readFileSync(new URL('../schemas/protobuf.txt', import.meta.url), 'utf8').split('\n')) {
    const [name = '', ...parts] = line.split(' ');
    const message = new Map<number, Field>();
    for (const part of parts) {
      const [number = '', field = '', written = ''] = part.split(':');
      const map = /^map<(.*)>$/.exec(written);
      message.set(Number(number), {
        name: field,
        type: map?.[1] ?? written.replace('*', ''),
        repeated: written.endsWith('*'),
        map: map !== null,
      });
    }
    loaded.set(name, message);
  }
  return loaded;
}

type Raw = Buffer | bigint;

function decodeMessage(bytes: Buffer, type: string, node: SchemaNode | undefined, depth: number): unknown {
  if (depth > MAX_DEPTH) throw ApiError.badRequest('the protobuf body is nested too deeply');
  const special = SPECIAL[type];
  if (special) return special(bytes);
  const message = messages?.get(type);
  if (!message) throw ApiError.badRequest(`unknown protobuf message ${type}`);
  const wrapped = message.size === 1 ? message.get(1) : undefined;
  const result: JsonObject = {};
  for (const { number, value } of fields(bytes)) {
    const field = message.get(number);
    if (!field) continue;
    const inner = node?.field(field.name);
    if (field.map) {
      const entry = fields(asBytes(value));
      const map = isObject(result[field.name]) ? (result[field.name] as JsonObject) : {};
      map[lastBytes(entry, 1).toString('utf8')] = decodeValue(last(entry, 2) ?? Buffer.alloc(0), field.type, inner?.field('*'), depth);
      result[field.name] = map;
    } else if (field.repeated) {
      const list = Array.isArray(result[field.name]) ? (result[field.name] as unknown[]) : [];
      list.push(decodeValue(value, field.type, inner?.items(), depth));
      result[field.name] = list;
    } else {
      const decoded = decodeValue(value, field.type, inner ?? (node && !inner ? node : undefined), depth);
      // A struct that Go embeds: its fields stand among the message's own.
      if (node && !inner && isObject(decoded)) Object.assign(result, decoded);
      else if (decoded !== '' && decoded !== undefined && !((decoded === 0 || decoded === false) && ZERO_IS_UNSET.has(field.name)))
        result[field.name] = decoded;
    }
  }
  // ExtraValue, Verbs and their like are lists in JSON.
  return wrapped?.name === 'items' ? (result.items ?? []) : result;
}

function decodeValue(value: Raw, type: string, node: SchemaNode | undefined, depth: number): unknown {
  switch (type) {
    case 'string':
      return asBytes(value).toString('utf8');
    case 'bytes':
      return asBytes(value).toString('base64');
    case 'bool':
      return value !== 0n;
    case 'int32':
    case 'int64':
      return Number(BigInt.asIntN(64, asInteger(value)));
    case 'double':
      return asBytes(value).readDoubleLE(0);
    default:
      return decodeMessage(asBytes(value), type, node, depth + 1);
  }
}

const SPECIAL: Readonly<Record<string, (bytes: Buffer) => unknown>> = {
  'resource.Quantity': (bytes) => lastBytes(fields(bytes), 1).toString('utf8'),
  'intstr.IntOrString': (bytes) => {
    const parts = fields(bytes);
    if (last(parts, 1) === 1n) return lastBytes(parts, 3).toString('utf8');
    return Number(BigInt.asIntN(64, asInteger(last(parts, 2) ?? 0n)));
  },
  'meta.v1.Time': time,
  'meta.v1.MicroTime': time,
  'meta.v1.FieldsV1': json,
  'runtime.RawExtension': json,
};

function time(bytes: Buffer): string | undefined {
  const parts = fields(bytes);
  if (parts.length === 0) return undefined;
  const seconds = Number(BigInt.asIntN(64, asInteger(last(parts, 1) ?? 0n)));
  const micros = Math.floor(Number(asInteger(last(parts, 2) ?? 0n)) / 1000);
  const text = new Date(seconds * 1000).toISOString();
  return micros === 0 ? text.replace('.000Z', 'Z') : text.replace('.000Z', `.${String(micros).padStart(6, '0')}Z`);
}

function json(bytes: Buffer): unknown {
  const text = lastBytes(fields(bytes), 1).toString('utf8');
  return text === '' ? undefined : JSON.parse(text);
}

/** The wire format: numbers and their raw values in order. @throws {ApiError} where it is cut short */
function fields(bytes: Buffer): { number: number; value: Raw }[] {
  const result: { number: number; value: Raw }[] = [];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) break;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw malformed();
  };
  const take = (length: number): Buffer => {
    if (length < 0 || at + length > bytes.length) throw malformed();
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    const wire = tag & 7;
    if (wire === 0) result.push({ number: tag >>> 3, value: varint() });
    else if (wire === 1) result.push({ number: tag >>> 3, value: take(8) });
    else if (wire === 2) result.push({ number: tag >>> 3, value: take(Number(varint())) });
    else if (wire === 5) result.push({ number: tag >>> 3, value: take(4) });
    else throw malformed();
  }
  return result;
}

const malformed = (): ApiError => ApiError.badRequest('the protobuf body is malformed');

const last = (parts: readonly { number: number; value: Raw }[], number: number): Raw | undefined =>
  parts.findLast((part) => part.number === number)?.value;

const lastBytes = (parts: readonly { number: number; value: Raw }[], number: number): Buffer =>
  asBytes(last(parts, number) ?? Buffer.alloc(0));

function asBytes(value: Raw): Buffer {
  if (typeof value === 'bigint') throw malformed();
  return value;
}

function asInteger(value: Raw): bigint {
  if (typeof value !== 'bigint') throw malformed();
  return value;
}
