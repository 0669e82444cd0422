/** Probes: one attempt of each kind, and the counting of successes and failures over time. */
import type { Socket } from 'node:net';
import tls from 'node:tls';
import type { Clock, Timer } from '../../common/base/clock.ts';
import { http } from '../../common/base/node-http.ts';
import type { Container, Handler, IntOrString, Probe } from '../objects.ts';
import type { Attempt } from './attempt.ts';

/** How a probe reaches its container. */
export interface ProbeTarget {
  /** The pod's address. */
  readonly ip: string;
  /** A connected TCP socket, made in the node's network as the kubelet would; rejects where it cannot be. */
  connect(ip: string, port: number, timeoutMs: number): Promise<Socket>;
  /** Exit status and output of a command in the container. */
  exec(command: readonly string[], timeoutMs: number): Promise<{ status: number; output: string }>;
}

/** Never rejects: what goes wrong is a failed attempt. */
export async function attempt(handler: Handler, container: Container, target: ProbeTarget, timeoutMs: number): Promise<Attempt> {
  try {
    if (handler.exec) {
      const { status, output } = await target.exec(handler.exec.command ?? [], timeoutMs);
      return { success: status === 0, detail: output.trim().slice(0, 1000) };
    }
    if (handler.httpGet) return await httpAttempt(handler.httpGet, container, target, timeoutMs);
    if (handler.tcpSocket) {
      const socket = await target.connect(handler.tcpSocket.host ?? target.ip, portOf(handler.tcpSocket.port, container), timeoutMs);
      socket.destroy();
      return { success: true, detail: '' };
    }
    if (handler.grpc) {
      const { grpcHealth } = await import('./grpc-probe.ts');
      const socket = await target.connect(target.ip, handler.grpc.port, timeoutMs);
      return await grpcHealth(socket, handler.grpc.service ?? '', timeoutMs);
    }
    return { success: true, detail: 'no handler' };
  } catch (error) {
    return { success: false, detail: error instanceof Error ? error.message : String(error) };
  }
}

export interface ProbeLoopOptions {
  readonly probe: Probe;
  readonly clock: Clock;
  /** One attempt. */
  readonly attempt: () => Promise<Attempt>;
  /** Ask faster until the first success: a pod should be ready when it is, not up to ten seconds later. Only where a failure has no effect. */
  readonly eager: boolean;
  /** Called when the verdict changes, and with each failure beyond the threshold. */
  readonly onVerdict: (success: boolean, detail: string) => void;
  /** Every failed attempt. */
  readonly onFailure: (detail: string) => void;
}

const EAGER_PERIOD_MS = 200;

/** @returns how to stop */
export function startProbe({ probe, clock, attempt: once, eager, onVerdict, onFailure }: ProbeLoopOptions): () => void {
  const periodMs = (probe.periodSeconds ?? 10) * 1000;
  let successes = 0;
  let failures = 0;
  let everSucceeded = false;
  let verdict: boolean | undefined;
  let stopped = false;
  let timer: Timer | undefined;
  const startedMs = clock.monotonic();
  const run = async (): Promise<void> => {
    const { success, detail } = await once();
    if (stopped) return;
    successes = success ? successes + 1 : 0;
    failures = success ? 0 : failures + 1;
    everSucceeded ||= success;
    // While it starts, refusals are nothing to tell anybody about.
    if (!success && (everSucceeded || !eager || clock.monotonic() - startedMs >= periodMs)) onFailure(detail);
    if (success && successes >= (probe.successThreshold ?? 1) && verdict !== true) {
      verdict = true;
      onVerdict(true, detail);
    } else if (!success && failures >= (probe.failureThreshold ?? 3)) {
      verdict = false;
      onVerdict(false, detail);
    }
    if (!stopped) timer = clock.after(eager && !everSucceeded ? Math.min(periodMs, EAGER_PERIOD_MS) : periodMs, run);
  };
  timer = clock.after((probe.initialDelaySeconds ?? 0) * 1000, run);
  return () => {
    stopped = true;
    timer?.cancel();
  };
}

/** A number, or the name of one of the container's ports. @throws {Error} naming it */
export function portOf(port: IntOrString, container: Container): number {
  if (typeof port === 'number') return port;
  const named = container.ports?.find(({ name }) => name === port)?.containerPort ?? Number(port);
  if (!Number.isInteger(named)) throw new Error(`container ${container.name} has no port named ${port}`);
  return named;
}

async function httpAttempt(
  { path = '/', port, host, scheme = 'HTTP', httpHeaders = [] }: NonNullable<Handler['httpGet']>,
  container: Container,
  target: ProbeTarget,
  timeoutMs: number,
): Promise<Attempt> {
  const number = portOf(port, container);
  const ip = host ?? target.ip;
  const plain = await target.connect(ip, number, timeoutMs);
  const socket = scheme.toUpperCase() === 'HTTPS' ? tls.connect({ socket: plain, rejectUnauthorized: false }) : plain;
  const headers: Record<string, string> = { 'user-agent': 'kube-probe/1.32', accept: '*/*', connection: 'close' };
  for (const { name, value } of httpHeaders) headers[name.toLowerCase()] = value;
  headers.host ??= ip.includes(':') ? `[${ip}]:${number}` : `${ip}:${number}`;
  try {
    return await new Promise<Attempt>((resolve, reject) => {
      const request = http.request({ createConnection: () => socket, path, headers, timeout: timeoutMs }, (response) => {
        response.resume();
        const status = response.statusCode ?? 0;
        resolve({ success: status >= 200 && status < 400, detail: `HTTP probe failed with statuscode: ${status}` });
      });
      request.on('timeout', () => reject(new Error(`Get "${scheme.toLowerCase()}://${headers.host}${path}": context deadline exceeded`)));
      request.on('error', reject);
      request.end();
    });
  } finally {
    socket.destroy();
    plain.destroy();
  }
}
