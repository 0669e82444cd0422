/**
 * Addresses of workloads that are known by hostname only (ServiceEntry with resolution DNS): the system's resolver, a bounded cache, and
 * one question at a time for a name.
 */
import { lookup } from 'node:dns/promises';
import { type IpAddress, parseIp } from '../base/address.ts';
import type { Clock } from '../base/clock.ts';

export type Lookup = (hostname: string) => Promise<readonly string[]>;

const MAX_ENTRIES = 4096;
// The resolver does not say how long an answer holds.
const KEEP_MS = 30_000;
const KEEP_FAILURE_MS = 2000;

export const systemLookup: Lookup = async (hostname) => (await lookup(hostname, { all: true })).map(({ address }) => address);

export class HostnameResolver {
  readonly #lookup: Lookup;
  readonly #clock: Clock;
  readonly #entries = new Map<string, { until: number; answer: Promise<readonly IpAddress[]> }>();

  constructor(options: { lookup: Lookup; clock: Clock }) {
    this.#lookup = options.lookup;
    this.#clock = options.clock;
  }

  /** Empty where the name has no address or cannot be resolved now. */
  resolve(hostname: string): Promise<readonly IpAddress[]> {
    const known = this.#entries.get(hostname);
    if (known && known.until > this.#clock.monotonic()) return known.answer;
    const oldest = this.#entries.keys().next();
    if (this.#entries.size >= MAX_ENTRIES && !oldest.done) this.#entries.delete(oldest.value);
    const entry = { until: this.#clock.monotonic() + KEEP_MS, answer: this.#ask(hostname) };
    this.#entries.delete(hostname);
    this.#entries.set(hostname, entry);
    void entry.answer.then((addresses) => {
      if (addresses.length === 0) entry.until = this.#clock.monotonic() + KEEP_FAILURE_MS;
    });
    return entry.answer;
  }

  async #ask(hostname: string): Promise<readonly IpAddress[]> {
    try {
      return (await this.#lookup(hostname)).flatMap((address) => parseIp(address) ?? []);
    } catch {
      // No such name and no answer come to the same here: nothing to connect to; the caller says which name it was.
      return [];
    }
  }
}
