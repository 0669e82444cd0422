/**
 * Asks authorization servers about requests. They are reached as any service of the mesh: chosen endpoint, tunnel, connections that are kept.
 * An answer is read whole before anything happens, and is limited in size and time.
 */
import type { Clock } from '../../common/base/clock.ts';
import { ProxyError } from '../../common/base/errors.ts';
import type { CheckVerdict, CompiledAuthorizer } from '../../common/decision/authorizer.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import type { BodySource, ClientListener, Fields, ResponseHead } from '../../common/http/types.ts';
import type { PickedEndpoint } from '../cluster/endpoint.ts';
import type { EndpointPicker } from '../cluster/picker.ts';
import type { HttpVersion, Upstreams } from '../cluster/upstreams.ts';
import { type Answered, type Asked, grpcQuestion, grpcVerdict, httpQuestion, httpVerdict, type Question } from './authorizer-forms.ts';
import { bufferSource } from './request-body.ts';

export interface AuthorizerParts {
  readonly view: Pick<MeshView, 'serviceByKey'>;
  readonly picker: Pick<EndpointPicker, 'pick'>;
  readonly upstreams: Pick<Upstreams, 'ready' | 'open'>;
  readonly clock: Clock;
}

const MAX_ANSWER_BYTES = 1 << 20;
/** Istio's, where a provider says nothing. */
const TIMEOUT_MS = 600_000;

/** Never rejects. @param gone when nobody waits for the answer any more */
export async function askAuthorizer(
  parts: AuthorizerParts,
  authorizer: CompiledAuthorizer,
  asked: Asked,
  gone: AbortSignal,
): Promise<CheckVerdict> {
  const limitMs = authorizer.timeoutMs || TIMEOUT_MS;
  const late = new AbortController();
  const timer = parts.clock.after(limitMs, () => late.abort(new ProxyError('REQUEST_TIMEOUT', `no answer within ${limitMs} ms`)));
  try {
    const question = authorizer.grpc ? grpcQuestion(authorizer, asked) : httpQuestion(authorizer, asked);
    const answered = await exchange(parts, authorizer, question, AbortSignal.any([gone, late.signal]));
    return authorizer.grpc ? grpcVerdict(answered) : httpVerdict(authorizer, answered);
  } catch (reason) {
    return { at: 'failed', reason: ProxyError.from(reason, 'CONNECTION_LOST', 'the question').message };
  } finally {
    timer.cancel();
  }
}

async function exchange(
  { view, picker, upstreams }: AuthorizerParts,
  { to, grpc }: CompiledAuthorizer,
  question: Question,
  signal: AbortSignal,
): Promise<Answered> {
  const service = view.serviceByKey(to.namespace, to.hostname);
  const place = `${to.namespace}/${to.hostname} port ${to.port}`;
  if (!service?.ports.has(to.port)) throw new ProxyError('SERVICE_UNKNOWN', `there is no ${place}`);
  const declared = service.appProtocols.get(to.port);
  const version: HttpVersion = grpc || declared === 'HTTP2' || declared === 'GRPC' ? 'http2' : 'http1';
  const refused = new Set<string>();
  for (;;) {
    const endpoint = picker.pick(service, to.port, refused, to.subset);
    if (!endpoint || refused.has(endpoint.key)) throw new ProxyError('NO_HEALTHY_UPSTREAM', `${place} has no endpoint`);
    const { refuse, origin } = endpoint.cluster.policy ?? { refuse: '', origin: '' };
    if (refuse !== '') throw new ProxyError('BACKEND_INVALID', `${origin}: ${refuse}`);
    const ready = upstreams.ready(endpoint, version);
    try {
      const connection = ready ?? (await upstreams.open(endpoint, version, () => signal));
      return await whole(
        endpoint,
        (listener) => {
          const source = bufferSource(question.body);
          const sent = connection.request(question.head, question.body.length > 0 ? source : undefined, listener);
          if (question.body.length > 0) source.into(sent.body);
          return (error) => sent.abort(error);
        },
        signal,
      );
    } catch (error) {
      // A question changes nothing where it is asked, so what broke before an answer is asked again: an idle connection that had just
      // ended once of the same endpoint, everything else of another one.
      if (signal.aborted || (!(error instanceof Unanswered) && ready)) throw error;
      if (!ready) {
        refused.add(endpoint.key);
        if (refused.size >= MAX_ENDPOINTS) throw error;
      }
    }
  }
}

const MAX_ENDPOINTS = 3;

/** Nothing of an answer has come. */
class Unanswered extends ProxyError {}

function whole(
  endpoint: PickedEndpoint,
  send: (listener: ClientListener) => (error: ProxyError) => void,
  signal: AbortSignal,
): Promise<Answered> {
  endpoint.load.active++;
  return new Promise<Answered>((resolve, reject) => {
    let abort: ((error: ProxyError) => void) | undefined;
    const settled = (): void => signal.removeEventListener('abort', onAbort);
    const fail = (error: unknown): void => {
      settled();
      reject(error);
    };
    const onAbort = (): void => {
      const error = ProxyError.from(signal.reason, 'CLIENT_GONE', 'the question was given up');
      abort?.(error);
      fail(error);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) return onAbort();
    abort = send({
      informational: () => undefined,
      response: (head, body) =>
        collect(
          head,
          body,
          (answered) => {
            settled();
            resolve(answered);
          },
          fail,
        ),
      failed: (error) => fail(new Unanswered(error.code, error.message, { cause: error })),
    });
  }).finally(() => {
    endpoint.load.active--;
  });
}

function collect(head: ResponseHead, body: BodySource, done: (answered: Answered) => void, fail: (error: unknown) => void): void {
  const chunks: Buffer[] = [];
  let bytes = 0;
  body.into({
    data(chunk) {
      bytes += chunk.length;
      if (bytes > MAX_ANSWER_BYTES) {
        body.cancel();
        fail(new ProxyError('UPSTREAM_PROTOCOL', `the answer is longer than ${MAX_ANSWER_BYTES} bytes`));
        return false;
      }
      // The chunk is its sender's when we return.
      chunks.push(Buffer.from(chunk));
      return true;
    },
    end: (trailers: Fields | undefined) => done({ head, body: Buffer.concat(chunks), trailers: trailers ?? [] }),
    abort: fail,
  });
}
