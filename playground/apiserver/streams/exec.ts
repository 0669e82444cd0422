/** A command in a container, over whichever streams the client's protocol has. */
import type { Readable, Writable } from 'node:stream';
import { ApiError } from '../api-error.ts';
import type { ExecSession } from '../kubelet.ts';
import { containerOf, type PodTarget } from './pod-target.ts';
import type { SpdyConnection, SpdyStream } from './spdy.ts';
import type { WebSocketChannels } from './web-socket-channels.ts';

export interface ExecRequest {
  readonly container: string;
  readonly command: readonly string[];
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

interface ExecStreams {
  readonly stdin?: Readable;
  readonly stdout?: Writable;
  readonly stderr?: Writable;
  readonly resize?: Readable;
  readonly error: Writable;
  close(): void;
  onClose(run: () => void): void;
}

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const ERROR = 3;
const RESIZE = 4;

/** @throws {ApiError} BadRequest */
export function execRequest(query: URLSearchParams, target: PodTarget): ExecRequest {
  const command = query.getAll('command');
  if (command.length === 0) throw ApiError.badRequest('you must specify at least one command for the container');
  const flag = (name: string): boolean => ['true', '1'].includes(query.get(name) ?? '');
  const container = containerOf(target.object, query.get('container') ?? '');
  return { container, command, stdin: flag('stdin'), stdout: flag('stdout'), stderr: flag('stderr'), tty: flag('tty') };
}

export function execOverChannels(channels: WebSocketChannels, target: PodTarget, request: ExecRequest): Promise<void> {
  return run(target, request, {
    ...(request.stdin ? { stdin: channels.reader(STDIN) } : {}),
    stdout: channels.writer(STDOUT),
    stderr: channels.writer(STDERR),
    resize: channels.reader(RESIZE),
    error: channels.writer(ERROR),
    close: () => channels.close(),
    onClose: (done) => channels.onClose(done),
  });
}

/** Collects the streams that the client opens; the command starts when all that were announced are there. */
export function execOverSpdy(
  target: PodTarget,
  request: ExecRequest,
  onClose: (run: () => void) => void,
): (stream: SpdyStream, connection: SpdyConnection) => void {
  const expected = [
    'error',
    ...(request.stdin ? ['stdin'] : []),
    ...(request.stdout ? ['stdout'] : []),
    ...(request.stderr && !request.tty ? ['stderr'] : []),
  ];
  if (request.tty) expected.push('resize');
  const streams = new Map<string, SpdyStream>();
  let started = false;
  return (stream, connection) => {
    // A stream more, and the command would run again.
    if (started) return;
    streams.set(stream.headers.get('streamtype') ?? '', stream);
    const error = streams.get('error');
    started = error !== undefined && expected.every((name) => streams.has(name));
    if (!error || !started) return;
    const [stdin, stdout, stderr, resize] = ['stdin', 'stdout', 'stderr', 'resize'].map((name) => streams.get(name));
    void run(target, request, {
      ...(stdin ? { stdin } : {}),
      ...(stdout ? { stdout } : {}),
      ...(stderr ? { stderr } : {}),
      ...(resize ? { resize } : {}),
      error,
      close: () => connection.close(),
      onClose,
    });
  };
}

async function run({ pod, kubelet }: PodTarget, request: ExecRequest, streams: ExecStreams): Promise<void> {
  let session: ExecSession | undefined;
  let gone = false;
  let over = false;
  streams.onClose(() => {
    gone = true;
    // Once it has ended, its process id may be somebody else's.
    if (!over) session?.kill();
  });
  try {
    session = await kubelet.exec(pod, request.container, request.command, { stdin: request.stdin, tty: request.tty });
    if (gone) session.kill();
    watchSize(session, streams.resize);
    if (streams.stdin && session.stdin) {
      session.stdin.on('error', () => undefined);
      streams.stdin.pipe(session.stdin);
    }
    const outputs = [copied(session.stdout, streams.stdout), ...(session.stderr ? [copied(session.stderr, streams.stderr)] : [])];
    const { code } = await session.exit;
    over = true;
    await Promise.all(outputs);
    await finished(streams, exitStatus(code));
  } catch (error) {
    await finished(streams, failure(error));
  }
}

function copied(from: Readable, to: Writable | undefined): Promise<void> {
  return new Promise((resolve) => {
    from
      .once('close', resolve)
      .once('end', resolve)
      .once('error', () => resolve());
    if (!to) {
      from.resume();
      return;
    }
    to.on('error', () => from.resume()).once('close', () => from.resume());
    from.pipe(to, { end: false });
  });
}

async function finished(streams: ExecStreams, status: object): Promise<void> {
  for (const output of [streams.stdout, streams.stderr]) output?.end();
  await new Promise<void>((resolve) => {
    streams.error.on('error', () => resolve());
    streams.error.end(JSON.stringify(status), () => resolve());
  });
  streams.close();
}

function exitStatus(code: number): object {
  if (code === 0) return { metadata: {}, status: 'Success' };
  return {
    metadata: {},
    status: 'Failure',
    message: `command terminated with non-zero exit code: exit status ${code}`,
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
  };
}

const failure = (error: unknown): object => {
  if (error instanceof ApiError) return error.status();
  return {
    metadata: {},
    status: 'Failure',
    message: error instanceof Error ? error.message : String(error),
    reason: 'InternalError',
    code: 500,
  };
};

/** Lines of `{"Width":80,"Height":24}`. */
function watchSize(session: ExecSession, resize: Readable | undefined): void {
  resize?.on('error', () => undefined);
  resize?.on('data', (chunk: Buffer) => {
    for (const line of chunk.toString('utf8').split('\n')) {
      const match = /"Width":\s*(\d+).*?"Height":\s*(\d+)/.exec(line);
      if (match) session.resize(Number(match[1]), Number(match[2]));
    }
  });
}
