/**
 * Virtual addresses for ServiceEntries that have none of their own (Istio, pilot/pkg/controllers/ipallocate): one of each family for each host,
 * written into the object's status, which is where everybody reads them from. What an object shows stays as long as nobody older has it; what
 * users write into `spec.addresses` is never given away.
 */
import { isDeepStrictEqual } from 'node:util';
import { type Cidr, cidrContains, ipBytes, ipFromBytes, parseIp } from '../../common/base/address.ts';
import type { StatusSlot, StatusWrite } from './conditions.ts';
import { Groups } from './groups.ts';
import * as names from './names.ts';
import { annotationFlag, at, objectKey, readMeta, records, text, texts } from './objects.ts';
import { statusPath, watchedKinds } from './watched-kinds.ts';

export interface AutoAddressRanges {
  readonly v4: Cidr;
  readonly v6: Cidr;
}

interface HostAddress {
  readonly host: string;
  readonly value: string;
}

interface Entry {
  readonly key: string;
  readonly createdAt: string;
  /** Hosts that are to have addresses. */
  readonly hosts: readonly string[];
  readonly shown: readonly HostAddress[];
  /** `spec.addresses` without a range. */
  readonly own: readonly string[];
  /** What was handed out for writing and has not been seen on the object yet. */
  written: readonly HostAddress[] | undefined;
}

const FIELD_MANAGER = 'istio-ip-autoallocate';

export class AutoAddresses {
  readonly #ranges: AutoAddressRanges;
  readonly #entries = new Map<string, Entry>();
  /** Who shows, wrote or was given an address. */
  readonly #claims = new Groups<string>();
  readonly #stale = new Set<string>();
  readonly #settled: StatusSlot[] = [];
  /** Where the next search begins: an address that was given back is not given out at once. */
  readonly #next = { v4: 1n, v6: 1n };

  constructor(ranges: AutoAddressRanges) {
    this.#ranges = ranges;
  }

  set(key: string, object: unknown): void {
    const before = this.#entries.get(key);
    const next = object === undefined ? undefined : readEntry(object);
    if (before && next && isDeepStrictEqual({ ...before, written: undefined }, next)) return;
    if (before?.written) this.#settled.push(statusWrite(key, []));
    for (const address of claimsOf(before)) this.#claims.remove(address, key);
    for (const address of claimsOf(next)) this.#claims.add(address, key);
    if (next) this.#entries.set(key, next);
    else this.#entries.delete(key);
    this.#stale.add(key);
    // Whoever shares an address with it may have to give it up, or may keep it now.
    for (const address of [...claimsOf(before), ...claimsOf(next)]) for (const other of this.#claims.of(address)) this.#stale.add(other);
  }

  /** As in status-table.ts: what a replica that does not write had in mind is not what the other one chose. */
  takeSettled(): StatusSlot[] {
    return this.#settled.splice(0);
  }

  /** Statuses to write. Older objects choose first. */
  take(): StatusWrite[] {
    const entries = [...this.#stale].flatMap((key) => this.#entries.get(key) ?? []).sort(olderFirst);
    this.#stale.clear();
    return entries.flatMap((entry) => {
      const wanted = this.#wanted(entry);
      if (isDeepStrictEqual(wanted, entry.shown) || (entry.written && isDeepStrictEqual(wanted, entry.written))) return [];
      entry.written = wanted;
      return [statusWrite(entry.key, wanted)];
    });
  }

  #wanted(entry: Entry): readonly HostAddress[] {
    if (entry.hosts.length === 0) {
      // What somebody else wrote there stays; ours goes with its reason.
      return entry.shown.some(({ value }) => !this.#isOurs(value)) ? entry.shown : [];
    }
    const known = entry.written ?? entry.shown;
    return entry.hosts.flatMap((host) =>
      (['v4', 'v6'] as const).flatMap((family) => {
        const present = known.find((one) => one.host === host && this.#isOf(one.value, family) && this.#keeps(one.value, entry));
        const value = present?.value ?? this.#allocate(family, entry.key);
        return value === undefined ? [] : [{ host, value }];
      }),
    );
  }

  #isOurs(value: string): boolean {
    return this.#isOf(value, 'v4') || this.#isOf(value, 'v6');
  }

  #isOf(value: string, family: keyof AutoAddressRanges): boolean {
    const range = this.#ranges[family];
    const bytes = ipBytes(value);
    return bytes !== undefined && bytes.length === range.bytes.length && cidrContains(range, bytes);
  }

  /** Whether it may keep an address that others have too: what users wrote wins, then the oldest. */
  #keeps(value: string, entry: Entry): boolean {
    for (const key of this.#claims.of(value)) {
      const other = this.#entries.get(key);
      if (!other || key === entry.key) continue;
      if (other.own.includes(value) || olderFirst(other, entry) < 0) return false;
    }
    return true;
  }

  /** The next one that nobody has; undefined where the range is used up. */
  #allocate(family: keyof AutoAddressRanges, key: string): string | undefined {
    const range = this.#ranges[family];
    const base = bigOf(range.bytes);
    const size = 1n << BigInt(range.bytes.length * 8 - range.length);
    for (let tries = 0; tries <= MAX_TRIES; tries++) {
      // Neither the network's own address nor the last one.
      if (this.#next[family] >= size - 1n) this.#next[family] = 1n;
      const value = ipFromBytes(bytesOf(base + this.#next[family]++, range.bytes.length));
      if (value === undefined || this.#claims.of(value).size > 0) continue;
      this.#claims.add(value, key);
      return value;
    }
    return undefined;
  }
}

/** As many as the range for IPv4 has. */
const MAX_TRIES = 1 << 16;

function readEntry(object: unknown): Entry | undefined {
  const meta = readMeta(object);
  if (!meta) return undefined;
  const spec = at(object, 'spec');
  const resolution = text(at(spec, 'resolution')) || 'NONE';
  const own = texts(at(spec, 'addresses'));
  const off = annotationFlag(meta.labels[names.ENABLE_AUTO_ALLOCATE_IP]) === false;
  const wants = own.length === 0 && resolution !== 'NONE' && !off;
  const hosts = [...new Set(texts(at(spec, 'hosts')))].filter((host) => !host.startsWith('*') || resolution === 'DYNAMIC_DNS');
  return {
    key: objectKey(meta),
    createdAt: meta.createdAt,
    hosts: wants ? hosts : [],
    shown: records(at(object, 'status', 'addresses')).map(({ host, value }) => ({ host: text(host), value: text(value) })),
    own: own.flatMap((address) => parseIp(address) ?? []),
    written: undefined,
  };
}

const claimsOf = (entry: Entry | undefined): string[] =>
  entry ? [...new Set([...entry.own, ...[...entry.shown, ...(entry.written ?? [])].map(({ value }) => value)])] : [];

function olderFirst(a: Entry, b: Entry): number {
  if (a.createdAt !== b.createdAt) return a.createdAt < b.createdAt ? -1 : 1;
  return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
}

function statusWrite(key: string, addresses: readonly HostAddress[]): StatusWrite {
  const [namespace = '', name = ''] = key.split('/');
  return {
    kind: 'ServiceEntry',
    apiVersion: watchedKinds.ServiceEntry.apiVersion,
    path: statusPath('ServiceEntry', namespace, name),
    namespace,
    name,
    fieldManager: FIELD_MANAGER,
    conditions: [],
    status: { addresses },
  };
}

const bigOf = (bytes: Uint8Array): bigint => bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);

function bytesOf(value: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let left = value;
  for (let i = length - 1; i >= 0; i--) {
    bytes[i] = Number(left & 255n);
    left >>= 8n;
  }
  return bytes;
}
