/** The way back: a response's head to the client, and its body from whoever has it, counted on its way, until the last byte or a failure. */
import { ProxyError } from '../../common/base/errors.ts';
import type { BodySink, BodySource, Fields } from '../../common/http/types.ts';
import type { Answer, RequestContext } from './context.ts';
import { GrpcMessages } from './grpc.ts';

export interface Delivered {
  readonly status: number;
  /** Bytes of the body. */
  readonly bytes: number;
  /** `grpc-status` of the trailers or of the head. */
  readonly grpcStatus: string | undefined;
  /** gRPC messages of the body; 0 where the request is none. */
  readonly messages: number;
  /** Of the response's head, and its trailers. */
  readonly fields: Fields;
  readonly trailers: Fields | undefined;
}

/** @param done called once, when the last byte is handed on or none will be; `request.error` says what went wrong */
export function deliver(request: RequestContext, answer: Answer, done: (delivered: Delivered) => void): void {
  new Delivery(request, answer, done).start();
}

class Delivery implements BodySink, BodySource {
  readonly #request: RequestContext;
  readonly #answer: Answer;
  readonly #done: (delivered: Delivered) => void;
  #sink: BodySink | undefined;
  #bytes = 0;
  readonly #messages: GrpcMessages | undefined;
  #grpcStatus: string | undefined;
  #trailers: Fields | undefined;
  #over = false;

  constructor(request: RequestContext, answer: Answer, done: (delivered: Delivered) => void) {
    this.#request = request;
    this.#answer = answer;
    this.#done = done;
    if (request.body.messages) this.#messages = new GrpcMessages();
    this.#grpcStatus = grpcStatus(answer.head.fields);
  }

  start(): void {
    const { body, head } = this.#answer;
    const request = this.#request;
    request.body.settle();
    if (request.cancelled?.code === 'CLIENT_GONE') {
      body?.cancel();
      this.#finish(request.cancelled);
      return;
    }
    try {
      this.#sink = request.exchange.respond(head, this);
    } catch (error) {
      body?.cancel();
      const failure = ProxyError.from(error, 'BACKEND_INVALID', 'the response cannot be sent as the route has it');
      request.exchange.abort(failure);
      this.#finish(failure);
      return;
    }
    // Where time was over before there was a response, this is the answer that says so, and it may go out whole.
    if (!request.cancelled) request.onCancel((error) => this.#cancelled(error));
    if (this.#over) return;
    if (body) body.into(this);
    else this.end(undefined);
  }

  // BodySink: what the endpoint, or we, have to say.

  data(chunk: Buffer): boolean {
    this.#bytes += chunk.length;
    this.#messages?.data(chunk);
    return this.#sink?.data(chunk) ?? true;
  }

  end(trailers: Fields | undefined): void {
    if (this.#over) return;
    if (trailers) this.#grpcStatus = grpcStatus(trailers) ?? this.#grpcStatus;
    this.#trailers = trailers;
    this.#sink?.end(trailers);
    this.#finish(undefined);
  }

  abort(error: ProxyError): void {
    if (this.#over) return;
    this.#sink?.abort(error);
    this.#finish(error);
  }

  // BodySource: the client's pace.

  into(): void {
    throw new Error('a delivery has its sink already');
  }

  resume(): void {
    this.#answer.body?.resume();
  }

  /** The client takes no more. */
  cancel(): void {
    if (this.#over) return;
    this.#answer.body?.cancel();
    this.#finish(this.#request.cancelled ?? new ProxyError('CLIENT_GONE', 'the client went away before the response was whole'));
  }

  /** Time is over, or the client is gone. */
  #cancelled(error: ProxyError): void {
    if (this.#over) return;
    this.#answer.body?.cancel();
    this.#sink?.abort(error);
    this.#finish(error);
  }

  #finish(error: ProxyError | undefined): void {
    if (this.#over) return;
    this.#over = true;
    this.#request.error ??= error;
    this.#request.over();
    const { status, fields } = this.#answer.head;
    this.#done({
      status,
      bytes: this.#bytes,
      grpcStatus: this.#grpcStatus,
      messages: this.#messages?.count ?? 0,
      fields,
      trailers: this.#trailers,
    });
  }
}

function grpcStatus(fields: Fields): string | undefined {
  for (let i = 0; i < fields.length; i += 2) if (fields[i] === 'grpc-status') return fields[i + 1];
  return undefined;
}
