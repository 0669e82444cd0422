/**
 * libuv's TCP handles as Node has them below `node:net`. That is not documented, so it is named in this file only, and the tests of tcp-stream.ts
 * run on every Node that we support.
 */
import { getSystemErrorName } from 'node:util';

/** An error as Node's own sockets have it. @param status libuv's, negative @param about whom the call was about */
export function systemError(syscall: string, status: number, about = ''): Error {
  const code = getSystemErrorName(status);
  return Object.assign(new Error(`${syscall} ${code}${about && ` ${about}`}`), { code, errno: status, syscall });
}

interface Request<Complete> {
  oncomplete?: Complete;
}
export interface WriteRequest extends Request<(status: number) => void> {
  kept?: unknown;
}

export interface TcpHandle {
  readonly fd: number;
  onread: () => Uint8Array | undefined;
  onconnection: (status: number, accepted: TcpHandle | undefined) => void;
  open(fd: number): number;
  bind(ip: string, port: number, flags: number): number;
  bind6(ip: string, port: number, flags: number): number;
  listen(backlog: number): number;
  connect(request: Request<(status: number) => void>, ip: string, port: number): number;
  connect6(request: Request<(status: number) => void>, ip: string, port: number): number;
  readStart(): number;
  readStop(): number;
  useUserBuffer(bytes: Uint8Array): void;
  writeBuffer(request: WriteRequest, bytes: Uint8Array): number;
  writev(request: WriteRequest, chunks: readonly Uint8Array[], allBuffers: true): number;
  setNoDelay(on: boolean): number;
  reset(done: () => void): number;
  close(done?: () => void): void;
}

export const isHandle = (value: unknown): value is TcpHandle => typeof value === 'object' && value !== null && 'useUserBuffer' in value;

interface Bindings {
  tcp_wrap: {
    readonly TCP: new (kind: number) => TcpHandle;
    readonly TCPConnectWrap: new () => Request<(status: number) => void>;
    readonly constants: { readonly SOCKET: number; readonly SERVER: number; readonly UV_TCP_REUSEPORT: number };
  };
  stream_wrap: {
    readonly WriteWrap: new () => WriteRequest;
    readonly kReadBytesOrError: number;
    readonly kLastWriteWasAsync: number;
    readonly streamBaseState: Int32Array;
  };
}

// What Node's own types leave out: its bindings are documented as deprecated for new code, and have had these names since version 12.
const node = process as unknown as { binding<Name extends keyof Bindings>(name: Name): Bindings[Name] };
export const { TCP, TCPConnectWrap, constants } = node.binding('tcp_wrap');
export const { WriteWrap, kReadBytesOrError, kLastWriteWasAsync, streamBaseState: streamState } = node.binding('stream_wrap');
