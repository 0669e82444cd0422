/** `kubectl logs`: a container's output, until it ends or the reader goes. */
import { ApiError } from '../api-error.ts';
import type { Exchange } from '../http/exchange.ts';
import type { LogOptions } from '../kubelet.ts';
import { containerOf, type PodTarget } from './pod-target.ts';

export async function serveLogs(exchange: Exchange, { object, pod, kubelet }: PodTarget): Promise<void> {
  if (exchange.method !== 'GET') throw ApiError.methodNotAllowed();
  const container = containerOf(object, exchange.query.get('container') ?? '');
  const tailLines = exchange.count('tailLines');
  const sinceSeconds = exchange.count('sinceSeconds');
  const limitBytes = exchange.count('limitBytes');
  const sinceTime = exchange.query.get('sinceTime');
  const options: LogOptions = {
    follow: exchange.flag('follow'),
    previous: exchange.flag('previous'),
    timestamps: exchange.flag('timestamps'),
    ...(tailLines === undefined ? {} : { tailLines }),
    ...(sinceSeconds === undefined ? {} : { sinceSeconds }),
    ...(limitBytes === undefined ? {} : { limitBytes }),
    ...(sinceTime === null ? {} : { sinceTime }),
  };
  const { response } = exchange;
  const lines = kubelet.logs(pod, container, options)[Symbol.asyncIterator]();
  // Aborting the iterator is what stops a follower whose reader has gone while no line comes.
  response.once('close', () => void lines.return?.().catch(() => undefined));
  // The first piece is awaited before the status is sent, so that a container without logs is an error and no empty answer. A follower
  // gets its status at once.
  if (options.follow) exchange.stream('text/plain; charset=utf-8');
  for (;;) {
    const { done, value } = await lines.next();
    if (done || response.destroyed) break;
    if (!response.headersSent) exchange.stream('text/plain; charset=utf-8');
    if (!response.write(value)) await new Promise<void>((resolve) => response.once('drain', resolve).once('close', resolve));
  }
  if (!response.headersSent) exchange.stream('text/plain; charset=utf-8');
  response.end();
}
