/**
 * The unix socket that the CNI plugin calls for each new pod of the node. It answers when the pod may start: at once where it does not
 * belong to the mesh, otherwise when ztunnel serves it. Anything but 200 makes the kubelet try again, so a pod of the mesh never starts
 * outside of it.
 */
import { chmodSync, renameSync, rmSync } from 'node:fs';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { dirname } from 'node:path';
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { http } from '../../common/base/node-http.ts';
import { fdOf } from '../../common/linux/node.ts';
import { type PeerCredentials, peerCredentials } from '../../common/linux/peer-credentials.ts';
import { ownSocketFolder } from '../host/host-file.ts';
import { type CmdAdd, parseCmdAdd } from './cmdadd.ts';

export interface EventServerOptions {
  readonly path: string;
  readonly log: Log;
  readonly clock: Clock;
  /** Resolves when the pod may start. @throws an Error whose message the kubelet shows */
  onAdd(event: CmdAdd): Promise<void>;
  /** For the metric: `ok`, or why not. */
  onAnswer(status: number): void;
}

const MAX_BODY_BYTES = 64 * 1024;
const CLOSE_GRACE_MS = 1000;
// Several times what a node may have of pods. What is beyond is closed at once, and its pod's start tried again by the kubelet.
const MAX_CONNECTIONS = 4096;
/** Of this process: in a test whoever calls need not be root. */
const OWNER = process.geteuid?.() ?? 0;

/** Whether the pod belongs to the mesh cannot be found out now; the plugin goes by what the agent left on the node (status 503). */
export class Undecided extends Error {}

export interface EventServer {
  close(): Promise<void>;
}

/** @throws the Error of node:net where the socket cannot be made, naming the path */
export async function serveEvents(options: EventServerOptions): Promise<EventServer> {
  const { path, log } = options;
  ownSocketFolder(dirname(path));
  const server = http.createServer((request, response) => {
    handle(options, request, response).catch((error: unknown) => {
      log.error({ error: errorMessage(error) }, 'answering the CNI plugin failed');
      response.destroy();
    });
  });
  server.headersTimeout = 5000;
  server.maxConnections = MAX_CONNECTIONS;
  // The file's mode keeps others out already; this holds too where somebody has changed it, or passes a descriptor on.
  server.on('connection', (socket) => {
    const { uid, pid } = peerOf(socket);
    if (uid === 0 || uid === OWNER) return;
    log.warn({ uid, pid }, 'somebody who may not connected to the socket of the CNI plugin');
    socket.destroy();
  });
  // Listening under another name and renaming: a predecessor's file is replaced, and nobody connects before the mode is set.
  const temporary = `${path}.${process.pid}`;
  rmSync(temporary, { force: true });
  await listen(server, temporary);
  chmodSync(temporary, 0o600);
  renameSync(temporary, path);
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeIdleConnections();
        // Who has not sent his whole request by now is not waited for.
        options.clock.after(CLOSE_GRACE_MS, () => server.closeAllConnections());
      }),
  };
}

async function handle(options: EventServerOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const [status, text] = await answer(options, request);
  options.onAnswer(status);
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', connection: 'close' });
  response.end(text === '' ? '' : `${text}\n`);
}

async function answer({ onAdd, log }: EventServerOptions, request: IncomingMessage): Promise<readonly [status: number, text: string]> {
  if (request.url !== '/cmdadd') return [404, 'the only path is /cmdadd'];
  if (request.method !== 'POST') return [405, 'expected POST'];
  let event: CmdAdd;
  try {
    event = parseCmdAdd(await readBody(request));
  } catch (error) {
    log.warn({ error: errorMessage(error) }, 'the CNI plugin sent an event that cannot be read');
    return [400, errorMessage(error)];
  }
  try {
    await onAdd(event);
    return [200, ''];
  } catch (error) {
    const reason = errorMessage(error);
    log.warn({ pod: event.podName, namespace: event.podNamespace, error: reason }, 'a new pod could not be enrolled');
    return [error instanceof Undecided ? 503 : 500, `pod ${event.podNamespace}/${event.podName}: ${reason}`];
  }
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) throw new Error(`the body is larger than ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Of a connection that has ended already nothing is known, and nothing is answered. */
function peerOf(socket: Socket): Partial<PeerCredentials> {
  try {
    return peerCredentials(fdOf(socket));
  } catch {
    return {};
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ path, backlog: MAX_CONNECTIONS }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
