/** One call of a webhook: an AdmissionReview over HTTPS, verified with the configuration's caBundle, within its timeout. */
import https from 'node:https';
import type { Duplex } from 'node:stream';
import tls from 'node:tls';
import { isObject, type JsonObject, objectOf, stringOf } from '../json.ts';

export type ConnectService = (namespace: string, name: string, port: string) => Promise<Duplex>;

const MAX_ANSWER_BYTES = 3 << 20;

/** @throws {Error} for whatever keeps a proper answer from coming */
export async function callWebhook(
  clientConfig: unknown,
  review: object,
  timeoutMs: number,
  connectService: ConnectService,
): Promise<JsonObject> {
  const { url, service, caBundle } = objectOf(clientConfig);
  const ca = stringOf(caBundle) === '' ? undefined : Buffer.from(stringOf(caBundle), 'base64').toString();
  const body = JSON.stringify(review);
  const signal = AbortSignal.timeout(timeoutMs);
  const target = typeof url === 'string' ? new URL(url) : serviceUrl(service);
  const host = target.hostname.replace(/^\[|\]$/g, '');
  let connection: tls.TLSSocket | undefined;
  try {
    if (isObject(service)) connection = await within(signal, serviceSocket(service, connectService, host, ca));
    const own = connection;
    // A connection of ours is used only where there is no agent at all.
    const text = await post(target, body, signal, { ...(ca ? { ca } : {}), ...(own ? { createConnection: () => own } : { agent: false }) });
    const answer: unknown = JSON.parse(text);
    if (!isObject(answer) || !isObject(answer.response)) throw new Error('the answer is no AdmissionReview with a response');
    return answer.response;
  } catch (error) {
    if (signal.aborted) throw new Error(`no answer within ${timeoutMs / 1000}s`, { cause: error });
    throw error;
  } finally {
    connection?.destroy();
  }
}

function serviceUrl(service: unknown): URL {
  const { name, namespace, path } = objectOf(service);
  return new URL(`https://${stringOf(name)}.${stringOf(namespace)}.svc${stringOf(path) || '/'}`);
}

async function serviceSocket(
  service: JsonObject,
  connect: ConnectService,
  servername: string,
  ca: string | undefined,
): Promise<tls.TLSSocket> {
  const raw = await connect(stringOf(service.namespace), stringOf(service.name), String(service.port ?? 443));
  const socket = tls.connect({ socket: raw, servername, ...(ca ? { ca } : {}) });
  // The request that uses it reports; after the request nobody is interested.
  return socket.on('error', () => raw.destroy());
}

/** Gives up waiting when the signal says so; what comes later is closed. */
function within(signal: AbortSignal, socket: Promise<tls.TLSSocket>): Promise<tls.TLSSocket> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      reject(signal.reason);
      socket.then((late) => late.destroy()).catch(() => undefined);
    };
    signal.addEventListener('abort', abort, { once: true });
    socket.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

function post(url: URL, body: string, signal: AbortSignal, options: https.RequestOptions): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = https.request(
      url,
      {
        ...options,
        method: 'POST',
        signal,
        headers: { 'content-type': 'application/json', accept: 'application/json', 'content-length': Buffer.byteLength(body) },
      },
      (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size > MAX_ANSWER_BYTES) request.destroy(new Error(`the answer is longer than ${MAX_ANSWER_BYTES} bytes`));
          else chunks.push(chunk);
        });
        response.once('error', reject);
        response.once('end', () => {
          const text = Buffer.concat(chunks).toString('utf8');
          if (response.statusCode === 200) resolve(text);
          else reject(new Error(`status ${response.statusCode}: ${text.slice(0, 200)}`));
        });
      },
    );
    request.once('error', reject);
    request.end(body);
  });
}
