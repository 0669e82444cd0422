/**
 * The SOCKS 5 server of a pod (Istio's ztunnel, src/proxy/socks5.rs): for programs that rather name their destination than have it redirected.
 * What it is asked for goes the way of every connection that the pod opens.
 */
import { isIpv6, parseIp, type SocketAddress } from '../../common/base/address.ts';
import type { Timer } from '../../common/base/clock.ts';
import { ProxyError } from '../../common/base/errors.ts';
import type { AppSocket } from '../../common/hbone/app-socket.ts';
import type { PipeReader } from '../../common/hbone/endpoint.ts';
import { type ReadBuffer, returnReadBuffer } from '../../common/hbone/read-buffers.ts';
import { lookupName } from '../dns/lookup.ts';
import type { PodContext } from '../worker/context.ts';
import { carryOutbound } from './outbound.ts';
import { METHOD_CHOSEN, readGreeting, readRequest, type SocksTarget, socksAnswer, socksReplies } from './socks-messages.ts';

const NEGOTIATION_MS = 10_000;
const NOWHERE: SocketAddress = { ip: '0.0.0.0', port: 0 };

/** Never rejects for what a client or the network did; that is in the log. */
export async function serveSocks(pod: PodContext, app: AppSocket): Promise<void> {
  const { ends } = app;
  if (!ends) {
    app.destroy();
    return;
  }
  const { telemetry, connections } = pod.parts;
  const live = connections.add(pod.spec.uid);
  telemetry.socketOpened('outbound');
  try {
    const target = await negotiate(pod, app, live.signal);
    const destination = await addressOf(pod, target, live.signal);
    if (destination) {
      app.writeSlice(socksAnswer(socksReplies.SUCCEEDED));
      await carryOutbound(pod, live, app, ends.remote, destination);
      return;
    }
    app.writeSlice(socksAnswer(socksReplies.HOST_UNREACHABLE));
    const name = 'name' in target.host ? target.host.name : target.host.ip;
    throw new ProxyError('NO_HEALTHY_UPSTREAM', `SOCKS: ${name} has no address`);
  } catch (reason) {
    const error = ProxyError.from(reason, 'CONNECTION_LOST', 'SOCKS');
    telemetry.failedEarly({ direction: 'outbound', source: ends.remote, destination: NOWHERE, error });
    app.close();
  } finally {
    connections.remove(live);
    telemetry.socketClosed('outbound');
  }
}

/** Resolves with what the client asks for; what it sent after that is delivered to whoever starts the socket next. */
const negotiate = (pod: PodContext, app: AppSocket, signal: AbortSignal): Promise<SocksTarget> =>
  new Promise((resolve, reject) => new Negotiation(pod, app, signal, { resolve, reject }));

interface Outcome {
  resolve(target: SocksTarget): void;
  reject(error: ProxyError): void;
}

class Negotiation implements PipeReader {
  readonly #app: AppSocket;
  readonly #outcome: Outcome;
  readonly #signal: AbortSignal;
  readonly #timer: Timer;
  readonly #aborted = (): void => this.#fail(ProxyError.from(this.#signal.reason, 'CONNECTION_LOST', 'SOCKS'));
  #bytes: Buffer = Buffer.alloc(0);
  #read: typeof readGreeting = readGreeting;
  #over = false;

  constructor(pod: PodContext, app: AppSocket, signal: AbortSignal, outcome: Outcome) {
    this.#app = app;
    this.#outcome = outcome;
    this.#signal = signal;
    this.#timer = pod.parts.clock.after(NEGOTIATION_MS, () =>
      this.#fail(refused(`nothing was asked for within ${NEGOTIATION_MS / 1000} s`)),
    );
    signal.addEventListener('abort', this.#aborted, { once: true });
    app.start(this);
  }

  read(buffer: ReadBuffer, length: number): boolean {
    const more = this.slice(buffer.view.subarray(0, length));
    returnReadBuffer(buffer);
    return more;
  }

  /** A client that talks on without an answer is bounded by the reads: each is looked at before the next one is made. */
  slice(bytes: Buffer): boolean {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    while (!this.#over) {
      const step = this.#read(this.#bytes);
      if (step.next === 'more') return true;
      if (step.next === 'refuse') {
        this.#app.writeSlice(step.answer);
        this.#fail(refused(step.reason));
        break;
      }
      this.#bytes = this.#bytes.subarray(step.used);
      if (step.next === 'request') {
        this.#app.writeSlice(METHOD_CHOSEN);
        this.#read = readRequest;
      } else {
        this.#end();
        this.#app.giveBack(this.#bytes);
        this.#outcome.resolve(step.target);
      }
    }
    return false;
  }

  get backlog(): number {
    return this.#bytes.length;
  }

  ended(): void {
    this.#fail(refused('the client ended before it asked for anything'));
  }

  writable(): void {}

  closed(): void {
    this.ended();
  }

  #fail(error: ProxyError): void {
    if (this.#over) return;
    this.#end();
    this.#outcome.reject(error);
  }

  #end(): void {
    this.#over = true;
    this.#timer.cancel();
    this.#signal.removeEventListener('abort', this.#aborted);
  }
}

const refused = (why: string): ProxyError => new ProxyError('BAD_REQUEST', `SOCKS: ${why}`);

/** A service's own address first, as the DNS proxy would answer; else the system's resolver. Undefined for a name without an address. */
async function addressOf(pod: PodContext, { host, port }: SocksTarget, signal: AbortSignal): Promise<SocketAddress | undefined> {
  if ('ip' in host) return { ip: host.ip, port };
  const literal = parseIp(host.name);
  if (literal !== undefined) return { ip: literal, port };
  const { view, settings, resolver, random, log } = pod.parts;
  const client = await pod.local.wait(signal);
  const name = host.name.toLowerCase().replace(/\.$/, '');
  const ask = (type: 'A' | 'AAAA') =>
    lookupName(view, {
      name,
      type,
      client,
      clusterDomain: settings.clusterDomain,
      preferredNamespace: settings.preferredServiceNamespace,
      ipv6: settings.ipv6,
    });
  const found = (['A', 'AAAA'] as const).flatMap((type) => ask(type)?.addresses ?? []);
  const addresses = found.length > 0 || ask('A') ? found : await resolver.resolve(name);
  const [first] = addresses;
  if (first === undefined) log.debug({ pod: pod.name, name }, 'SOCKS: no address');
  const sameFamily = addresses.filter((ip) => first !== undefined && isIpv6(ip) === isIpv6(first));
  const ip = sameFamily[Math.floor(random() * sameFamily.length)];
  return ip === undefined ? undefined : { ip, port };
}
