/**
 * A client for cases of gateways, run in a pod: a line of JSON on its input is a request or many alike, a line of JSON on its output what came back.
 * One process for all requests, since starting one for each would take most of the time.
 */
import http from 'node:http';
import { connect } from 'node:http2';
import { createInterface } from 'node:readline';

export interface GatewayRequest {
  readonly id: number;
  readonly kind: 'http' | 'grpc' | 'websocket';
  /** host:port of the connection. */
  readonly to: string;
  /** Host or :authority; that of the connection where it is empty. */
  readonly authority: string;
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** How many of them are asked. */
  readonly count: number;
}

export interface GatewayAnswer {
  /** 0 for gRPC and WebSocket. */
  readonly status: number;
  /** -1 where there was none. */
  readonly grpcCode: number;
  /** Names in lower case, values of one name joined with ", ". */
  readonly headers: Readonly<Record<string, string>>;
  /** Of HTTP: text. Of gRPC: base64 of the message. Of a WebSocket: frames that came back as they were sent. */
  readonly body: string;
  /** Empty where there was an answer. */
  readonly error: string;
}

export interface GatewayAnswers {
  readonly id: number;
  readonly answers: readonly GatewayAnswer[];
}

const TIMEOUT_MS = 10_000;
const AT_ONCE = 10;
const NOTHING: GatewayAnswer = { status: 0, grpcCode: -1, headers: {}, body: '', error: '' };

const kinds = { http: askHttp, grpc: askGrpc, websocket: askWebSocket };

async function ask(request: GatewayRequest): Promise<GatewayAnswers> {
  const answers: GatewayAnswer[] = [];
  const worker = async (): Promise<void> => {
    while (answers.length + busy < request.count) {
      busy++;
      const answer = await kinds[request.kind](request).catch(
        (error: unknown): GatewayAnswer => ({ ...NOTHING, error: error instanceof Error ? error.message : String(error) }),
      );
      busy--;
      answers.push(answer);
    }
  };
  let busy = 0;
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, request.count) }, worker));
  return { id: request.id, answers };
}

function askHttp({ to, authority, method, path, headers }: GatewayRequest): Promise<GatewayAnswer> {
  const [host, port] = to.split(':');
  return new Promise((resolve, reject) => {
    const outgoing = http.request(
      // A connection of its own, as the suite has it.
      {
        host,
        port,
        method,
        path,
        agent: false,
        headers: { Host: authority || bare(to), ...headers },
        signal: AbortSignal.timeout(TIMEOUT_MS),
      },
      (response) => {
        const fields = Object.fromEntries(Object.entries(response.headersDistinct).map(([name, values = []]) => [name, values.join(', ')]));
        let body = '';
        response.setEncoding('utf8').on('data', (text: string) => {
          body += text;
        });
        response.on('error', reject);
        response.on('end', () => resolve({ ...NOTHING, status: response.statusCode ?? 0, headers: fields, body }));
      },
    );
    outgoing.on('error', reject);
    outgoing.end();
  });
}

const bare = (to: string): string => to.replace(/:80$/, '');

function askGrpc({ to, authority, path, headers }: GatewayRequest): Promise<GatewayAnswer> {
  return new Promise((resolve, reject) => {
    const session = connect(`http://${to}`);
    const timer = setTimeout(() => session.destroy(new Error('no answer in time')), TIMEOUT_MS);
    session.on('error', reject);
    session.on('close', () => clearTimeout(timer));
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      ':authority': authority || to,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    const chunks: Buffer[] = [];
    let code: unknown;
    const note = (fields: Record<string, unknown>): void => {
      code = fields['grpc-status'] ?? code;
    };
    stream.on('response', note).on('trailers', note);
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', reject);
    stream.on('end', () => {
      session.close();
      resolve({ ...NOTHING, grpcCode: code === undefined ? -1 : Number(code), body: Buffer.concat(chunks).subarray(5).toString('base64') });
    });
    // An empty message.
    stream.end(Buffer.alloc(5));
  });
}

function askWebSocket({ to, path }: GatewayRequest): Promise<GatewayAnswer> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://${to}${path}`);
    const sent: (string | Uint8Array<ArrayBuffer>)[] = ['Websocket Support!', new Uint8Array([1, 2, 3, 4, 5, 6, 7])];
    let same = 0;
    socket.binaryType = 'arraybuffer';
    socket.addEventListener('open', () => {
      for (const frame of sent) socket.send(frame);
    });
    socket.addEventListener('message', ({ data }: MessageEvent) => {
      const expected = sent[same];
      const came = typeof data === 'string' ? data : Buffer.from(data as ArrayBuffer).toString('hex');
      if (came !== (typeof expected === 'string' ? expected : Buffer.from(expected ?? []).toString('hex'))) return;
      same++;
      if (same < sent.length) return;
      socket.close();
      resolve({ ...NOTHING, body: String(same) });
    });
    socket.addEventListener('error', () => reject(new Error('the WebSocket failed')));
    socket.addEventListener('close', () => reject(new Error('the WebSocket was closed')));
    setTimeout(() => reject(new Error('no answer in time')), TIMEOUT_MS).unref();
  });
}

if (import.meta.main) {
  for await (const line of createInterface({ input: process.stdin })) {
    void ask(JSON.parse(line) as GatewayRequest).then((answers) => process.stdout.write(`${JSON.stringify(answers)}\n`));
  }
  process.exit(0);
}
