/** Copies of requests to other services: sent, and forgotten. No client waits for them; they are few, small and short, or left out. */
import type { Clock } from '../../common/base/clock.ts';
import { ProxyError } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { Mirror } from '../../common/codec/gen/waypoint.ts';
import type { CompiledEntry } from '../../common/decision/http-model.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import type { ClientListener, RequestHead } from '../../common/http/types.ts';
import type { EndpointPicker } from '../cluster/picker.ts';
import type { Upstreams } from '../cluster/upstreams.ts';
import type { RequestContext } from './context.ts';
import { upstreamVersion } from './forward.ts';
import { bufferSource } from './request-body.ts';

export interface MirrorParts {
  readonly view: Pick<MeshView, 'serviceByKey'>;
  readonly picker: Pick<EndpointPicker, 'pick'>;
  readonly upstreams: Pick<Upstreams, 'ready' | 'open'>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Pick<Log, 'debug'>;
  counted(outcome: 'sent' | 'failed' | 'left_out'): void;
}

/** Copies of one worker that are under way. */
const MAX_UNDER_WAY = 100;
const TIMEOUT_MS = 10_000;

export class Mirrors {
  readonly #parts: MirrorParts;
  #underWay = 0;

  constructor(parts: MirrorParts) {
    this.#parts = parts;
  }

  /** Called with the request as its rule has changed it, before its first attempt. */
  mirror(request: RequestContext, { rule }: CompiledEntry): void {
    for (const mirror of rule.mirrors) {
      const { numerator, denominator } = mirror;
      if (denominator > 0 && this.#parts.random() * denominator >= numerator) continue;
      if (this.#underWay >= MAX_UNDER_WAY) {
        this.#parts.counted('left_out');
        continue;
      }
      this.#underWay++;
      const { head } = request;
      request.body.whole((body) => this.#send(request, mirror, head, body));
    }
  }

  #send(request: RequestContext, { to }: Mirror, head: RequestHead, body: Buffer | undefined): void {
    if (body === undefined || head.upgrade !== undefined) {
      // Longer than what is kept, or never whole.
      this.#done('left_out');
      return;
    }
    const copy: RequestHead = { ...head, bodyBytes: body.length };
    this.#exchange(request, to, copy, body).then(
      () => this.#done('sent'),
      (error: unknown) => {
        this.#parts.log.debug({ id: request.traceId, error: String(error) }, 'mirrored request failed');
        this.#done('failed');
      },
    );
  }

  async #exchange(request: RequestContext, to: Mirror['to'], head: RequestHead, body: Buffer): Promise<void> {
    const { view, picker, upstreams, clock } = this.#parts;
    const service = to && view.serviceByKey(to.namespace, to.hostname);
    const endpoint = service && picker.pick(service, to.port, new Set(), to.subset);
    if (!endpoint) throw new ProxyError('NO_HEALTHY_UPSTREAM', 'the mirror has no endpoint');
    const version = upstreamVersion(request, service.appProtocols.get(to.port), endpoint.cluster.policy);
    const late = new AbortController();
    const timer = clock.after(TIMEOUT_MS, () => late.abort(new ProxyError('REQUEST_TIMEOUT', `no response within ${TIMEOUT_MS} ms`)));
    try {
      const connection = upstreams.ready(endpoint, version) ?? (await upstreams.open(endpoint, version, () => late.signal));
      await new Promise<void>((resolve, reject) => {
        const listener: ClientListener = {
          informational: () => undefined,
          response: (_, answer) => answer.into({ data: () => true, end: () => resolve(), abort: reject }),
          failed: reject,
        };
        const source = bufferSource(body);
        const exchange = connection.request(head, body.length > 0 ? source : undefined, listener);
        if (body.length > 0) source.into(exchange.body);
        late.signal.addEventListener('abort', () => {
          exchange.abort(late.signal.reason);
          reject(late.signal.reason);
        });
      });
    } finally {
      timer.cancel();
    }
  }

  #done(outcome: 'sent' | 'failed' | 'left_out'): void {
    this.#underWay--;
    this.#parts.counted(outcome);
  }
}
