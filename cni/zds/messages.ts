/** ZDS on the wire: one protobuf in each packet. What does not decode to a known message is an error that says so. */
import { Version, WorkloadRequest, WorkloadResponse, ZdsHello } from '../../common/codec/gen/zds.ts';

/** What ztunnel must know of a pod. */
export interface ZdsPod {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

export function encodeAdd({ uid, name, namespace, serviceAccount }: ZdsPod): Uint8Array {
  return WorkloadRequest.encode({
    payload: { $case: 'add', value: { uid, workloadInfo: { name, namespace, serviceAccount } } },
  }).finish();
}

export const encodeKeep = (uid: string): Uint8Array => WorkloadRequest.encode({ payload: { $case: 'keep', value: { uid } } }).finish();
export const encodeDel = (uid: string): Uint8Array => WorkloadRequest.encode({ payload: { $case: 'del', value: { uid } } }).finish();
export const encodeSnapshotSent = (): Uint8Array => WorkloadRequest.encode({ payload: { $case: 'snapshotSent', value: {} } }).finish();

/** @throws {Error} where the packet is no hello of a version that we speak */
export function decodeHello(data: Uint8Array): void {
  const { version } = decoded('hello', () => ZdsHello.decode(data));
  if (version !== Version.V1) throw new Error(`hello with version ${version}; this agent speaks version ${Version.V1}`);
}

/** @returns the error that ztunnel reports, empty for success. @throws {Error} where the packet is no acknowledgement */
export function decodeAck(data: Uint8Array): string {
  const { payload } = decoded('response', () => WorkloadResponse.decode(data));
  if (payload?.$case !== 'ack') throw new Error('a response without an acknowledgement');
  return payload.value.error;
}

function decoded<T>(what: string, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw new Error(`a ${what} that is no protobuf of its type`, { cause: error });
  }
}
