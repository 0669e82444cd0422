/**
 * DeltaDiscoveryResponse, put together from bytes: every resource is encoded once, when it changes, and all proxies get copies of the same
 * bytes. (Encoding 20,000 workloads through generated code takes 115 ms for each proxy; copying them takes 2.) Protobuf lets the fields of
 * a message come in any order, so a response is a few small fields in front of a body that many responses share.
 */
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import { type DeltaDiscoveryResponse, Resource, DeltaDiscoveryResponse as Response } from '../../common/codec/gen/discovery.ts';

const RESOURCES = (2 << 3) | 2;
const REMOVED_RESOURCES = (6 << 3) | 2;

/** One entry of `resources`, with its tag and length. */
export function encodeResource(
  typeUrl: string,
  resource: { name: string; version: string; aliases?: readonly string[]; bytes: Uint8Array },
): Buffer {
  const { name, version, aliases = [], bytes } = resource;
  const message = Resource.encode({ name, version, aliases: [...aliases], resource: { typeUrl, value: bytes } }).finish();
  return Buffer.from(new BinaryWriter().uint32(RESOURCES).bytes(message).finish());
}

/** One entry of `removed_resources`, with its tag and length. */
export function encodeRemoved(name: string): Buffer {
  return Buffer.from(new BinaryWriter().uint32(REMOVED_RESOURCES).string(name).finish());
}

/** A whole response; `body` is made of the pieces above. */
export function encodeResponse(head: { typeUrl: string; systemVersion: string; nonce: string }, body: Buffer): Buffer {
  const { typeUrl, systemVersion: systemVersionInfo, nonce } = head;
  const start = Response.encode({ systemVersionInfo, resources: [], typeUrl, nonce, removedResources: [] }).finish();
  return Buffer.concat([start, body]);
}

/** For tests and diagnostics. */
export const decodeResponse = (bytes: Uint8Array): DeltaDiscoveryResponse => Response.decode(new BinaryReader(bytes));

/** The message inside an encoded entry of `resources`. */
export const contents = ({ encoded }: { readonly encoded: Uint8Array }): Uint8Array =>
  decodeResponse(encoded).resources[0]?.resource?.value ?? new Uint8Array();
