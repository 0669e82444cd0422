/** What the API server asks of a node: the streams behind `kubectl logs`, `exec`, `port-forward` and the proxies. */
import type { Duplex, Readable, Writable } from 'node:stream';

export interface PodReference {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

export interface LogOptions {
  readonly follow: boolean;
  /** All lines where it is not given. */
  readonly tailLines?: number;
  readonly previous: boolean;
  readonly timestamps: boolean;
  readonly sinceSeconds?: number;
  /** RFC 3339. */
  readonly sinceTime?: string;
  readonly limitBytes?: number;
}

export interface ExecOptions {
  readonly stdin: boolean;
  readonly tty: boolean;
}

/** A command that runs in a container. Whoever asked for it calls `kill` when the client is gone. */
export interface ExecSession {
  /** Absent unless stdin was asked for. */
  readonly stdin?: Writable;
  readonly stdout: Readable;
  /** Absent with a terminal, whose output is one stream. */
  readonly stderr?: Readable;
  /** Resolves when the command ended; rejects where it could not be started. */
  readonly exit: Promise<{ readonly code: number; readonly signal?: string }>;
  resize(columns: number, rows: number): void;
  kill(): void;
}

/** Errors that reject or throw become the answer's message; an `ApiError` keeps its status. */
export interface KubeletStreams {
  logs(pod: PodReference, container: string, options: LogOptions): AsyncIterable<Buffer>;
  exec(pod: PodReference, container: string, command: readonly string[], options: ExecOptions): Promise<ExecSession>;
  /** A connection to a port of the pod on its own loopback. */
  portForward(pod: PodReference, port: number): Promise<Duplex>;
}
