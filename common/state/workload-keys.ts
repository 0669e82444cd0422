/**
 * What the state has to know of a workload to enter it: the hashes it is found by, and its place in the lists of its services. A push brings a
 * hundred thousand workloads, of which a node ever needs a few: they are read where they lie, without making an object or a text of anything.
 *
 * Only what a control plane ordinarily sends is read that way. Whatever is rare or wrong (other scripts than ASCII, extensions, values that
 * nobody knows, a length that leads too far) goes the long way through `decodeAddress`, which alone decides what is refused, and why; both
 * ways give the same. One cohesive machine.
 */
import { ipFromBytes } from '../base/address.ts';
import type { Service, Workload } from '../decision/mesh-view.ts';
import { decodeAddress } from './decode.ts';
import { ENDPOINT_WORDS, endpointFlags, flagsOf, placeHash, placeScopes, portsHash, writeEndpointItem } from './endpoint-items.ts';
import { hashAscii, hashText, type KeyKind, keyKinds } from './hash.ts';
import { workloadHashes } from './keys.ts';

/** Read again for each workload; what it says is good until the next one, and as long as the bytes are. For one thread. */
export class WorkloadKeys {
  readonly #seed: number;
  readonly #defaultCluster: number;
  #decoded: Workload | undefined;

  // The bytes that are read, and where in them.
  #bytes: Uint8Array = new Uint8Array(0);
  #at = 0;
  /** Start and end of each text that keys are made of. */
  readonly #spans = new Int32Array(SPAN_WORDS);
  readonly #addresses = new Int32Array(MAX_ADDRESSES * 2);
  #addressCount = 0;
  #hostNetwork = false;
  #flags = 0;
  #weight = 1;
  readonly #places = new Uint32Array(placeScopes.length);
  readonly #serviceHashes = new Uint32Array(MAX_SERVICES);
  readonly #servicePorts = new Uint32Array(MAX_SERVICES);
  readonly #ports = new Int32Array(MAX_PORTS);
  /** Texts that are made only to be hashed. */
  readonly #made = new Uint8Array(MAX_PORTS * 12);
  #madeEnd = 0;
  /** Names of services by their hash: the next workload mostly has the same. */
  readonly #texts: string[] = new Array(REMEMBERED_TEXTS).fill('');

  /** What the workload is entered under, `hashCount` of them, each once, the hash of its uid first. */
  hashes = new Uint32Array(MAX_ADDRESSES + 3);
  hashCount = 0;
  /** `namespace/hostname` of its services. */
  readonly services: string[] = [];
  /** One item for each of `services`, as lists of endpoints have them, of `ENDPOINT_WORDS` words; references are left open. */
  items: Uint32Array = new Uint32Array(ENDPOINT_WORDS * MAX_SERVICES);

  constructor(seed: number) {
    this.#seed = seed;
    this.#defaultCluster = hashText(seed, keyKinds.endpoints, 'Kubernetes');
  }

  /**
   * Reads an istio.workload.Address.
   * @returns the service, where it is one: then there are no keys
   * @throws {ResourceRejected}
   */
  read(bytes: Uint8Array): Service | undefined {
    this.#bytes = bytes;
    this.#decoded = undefined;
    this.services.length = 0;
    if (this.#scan()) {
      this.#addHashes();
      this.#addItems();
      return undefined;
    }
    this.services.length = 0;
    const decoded = decodeAddress(bytes);
    if ('service' in decoded) return decoded.service;
    this.#take(decoded.workload);
    return undefined;
  }

  get uid(): string {
    return this.#decoded?.uid ?? this.#textOf(spans.uid);
  }

  isOn(node: string): boolean {
    if (this.#decoded) return this.#decoded.node === node;
    return isText(this.#bytes, this.#spans[spans.node] ?? 0, this.#spans[spans.node + 1] ?? 0, node);
  }

  /** The long way. */
  #take(workload: Workload): void {
    this.#decoded = workload;
    this.hashes = Uint32Array.from(workloadHashes(this.#seed, workload));
    this.hashCount = this.hashes.length;
    this.services.push(...workload.services.keys());
    const words = this.services.length * ENDPOINT_WORDS;
    if (words > this.items.length) this.items = new Uint32Array(words);
    for (const [i, scope] of placeScopes.entries()) this.#places[i] = placeHash(this.#seed, workload, scope);
    let at = 0;
    for (const ports of workload.services.values()) {
      writeEndpointItem(this.items, at, workload.capacity, flagsOf(workload), portsHash(this.#seed, ports), this.#places);
      at += ENDPOINT_WORDS;
    }
  }

  #addHashes(): void {
    if (this.hashes.length < MAX_ADDRESSES + 3) this.hashes = new Uint32Array(MAX_ADDRESSES + 3);
    this.hashes[0] = this.#hash(keyKinds.workloadUid, spans.uid);
    this.hashCount = 1;
    this.#addHash(this.#hash(keyKinds.workloadPod, spans.namespace, spans.name));
    for (let i = 0; i < this.#addressCount && !this.#hostNetwork; i++) this.#addHash(this.#addressHash(i));
    if (this.#lengthOf(spans.hostname) > 0) this.#addHash(this.#hash(keyKinds.workloadHostname, spans.namespace, spans.hostname));
  }

  #addHash(hash: number): void {
    for (let i = 0; i < this.hashCount; i++) if (this.hashes[i] === hash) return;
    this.hashes[this.hashCount++] = hash;
  }

  #addItems(): void {
    if (this.services.length === 0) return;
    for (let i = 0; i < PLACES.length; i++) this.#places[i] = this.#hash(keyKinds.endpoints, PLACES[i] ?? 0);
    if (this.#lengthOf(spans.cluster) === 0) this.#places[CLUSTER] = this.#defaultCluster;
    const reachable = this.#addressCount > 0 || this.#lengthOf(spans.hostname) > 0;
    const flags = this.#flags | (reachable ? endpointFlags.address : 0);
    for (let i = 0; i < this.services.length; i++) {
      writeEndpointItem(this.items, i * ENDPOINT_WORDS, this.#weight, flags, this.#servicePorts[i] ?? 0, this.#places);
    }
  }

  /** @returns false where the long way has to be taken */
  #scan(): boolean {
    // One field, the workload, and nothing behind it.
    if (this.#bytes[0] !== 0x0a) return false;
    this.#at = 1;
    const length = this.#varint();
    if (length < 0 || this.#at + length !== this.#bytes.length) return false;
    this.#spans.fill(0);
    this.#addressCount = 0;
    this.#hostNetwork = false;
    this.#flags = endpointFlags.healthy;
    this.#weight = 1;
    const end = this.#bytes.length;
    while (this.#at < end) if (!this.#field(this.#varint(), end)) return false;
    return this.#at === end && this.#lengthOf(spans.uid) > 0;
  }

  #field(tag: number, end: number): boolean {
    switch (tag) {
      case tags.name:
        return this.#span(spans.name, end);
      case tags.namespace:
        return this.#span(spans.namespace, end);
      case tags.network:
        return this.#span(spans.network, end);
      case tags.node:
        return this.#span(spans.node, end);
      case tags.clusterId:
        return this.#span(spans.cluster, end);
      case tags.uid:
        return this.#span(spans.uid, end);
      case tags.hostname:
        return this.#span(spans.hostname, end);
      case tags.address:
        return this.#address(end);
      case tags.trustDomain:
      case tags.serviceAccount:
      case tags.canonicalName:
      case tags.canonicalRevision:
      case tags.workloadName:
      case tags.authorizationPolicy:
        return this.#skip(end);
      case tags.tunnelProtocol:
      case tags.nativeTunnel:
        return this.#below(2) >= 0;
      case tags.workloadType:
        return this.#below(4) >= 0;
      case tags.status: {
        const status = this.#below(2);
        this.#flags = status === 0 ? this.#flags | endpointFlags.healthy : this.#flags & ~endpointFlags.healthy;
        return status >= 0;
      }
      case tags.networkMode: {
        const mode = this.#below(2);
        this.#hostNetwork = mode === 1;
        return mode >= 0;
      }
      case tags.waypoint:
        return this.#gateway(end);
      case tags.networkGateway:
        this.#flags |= endpointFlags.gateway;
        return this.#gateway(end);
      case tags.service:
        return this.#service(end);
      case tags.locality:
        return this.#locality(end);
      case tags.capacity:
        return this.#capacity(end);
      case tags.applicationTunnel:
      case tags.extension:
        return false;
      default:
        return this.#unknown(tag, end);
    }
  }

  /** What a newer control plane says besides. */
  #unknown(tag: number, end: number): boolean {
    if (tag < 8) return false;
    switch (tag & 7) {
      case 0:
        return this.#varint() >= 0 && this.#at <= end;
      case 2:
        return this.#skip(end);
      default:
        return false;
    }
  }

  /** @returns the end of the piece that begins here; -1 where it is beyond what it is a piece of */
  #piece(end: number): number {
    const length = this.#varint();
    const stop = this.#at + length;
    return length < 0 || stop > end ? -1 : stop;
  }

  #skip(end: number): boolean {
    const stop = this.#piece(end);
    this.#at = stop;
    return stop >= 0;
  }

  #span(span: number, end: number): boolean {
    const stop = this.#piece(end);
    if (stop < 0) return false;
    this.#spans[span] = this.#at;
    this.#spans[span + 1] = stop;
    const bytes = this.#bytes;
    for (let i = this.#at; i < stop; i++) if ((bytes[i] ?? 0x80) >= 0x80) return false;
    this.#at = stop;
    return true;
  }

  #address(end: number): boolean {
    const stop = this.#piece(end);
    const length = stop - this.#at;
    if (stop < 0 || (length !== 4 && length !== 16) || this.#addressCount === MAX_ADDRESSES) return false;
    this.#addresses[this.#addressCount * 2] = this.#at;
    this.#addresses[this.#addressCount * 2 + 1] = stop;
    this.#addressCount++;
    this.#at = stop;
    return true;
  }

  #locality(end: number): boolean {
    const stop = this.#piece(end);
    if (stop < 0) return false;
    this.#spans.fill(0, spans.region, spans.subzone + 2);
    while (this.#at < stop) {
      const tag = this.#varint();
      if (tag !== FIRST_TEXT && tag !== SECOND_TEXT && tag !== THIRD_TEXT) return false;
      if (!this.#span(tag === FIRST_TEXT ? spans.region : tag === SECOND_TEXT ? spans.zone : spans.subzone, stop)) return false;
    }
    return this.#at === stop;
  }

  #capacity(end: number): boolean {
    const stop = this.#piece(end);
    if (stop < 0) return false;
    this.#weight = 0;
    if (this.#at < stop) {
      if (this.#varint() !== FIRST_NUMBER) return false;
      this.#weight = this.#varint();
    }
    return this.#weight >= 0 && this.#at === stop;
  }

  /** A hostname or an address, and a port. */
  #gateway(end: number): boolean {
    const stop = this.#piece(end);
    if (stop < 0) return false;
    let destinations = 0;
    while (this.#at < stop) {
      const tag = this.#varint();
      if (tag === THIRD_NUMBER) {
        if (!isPort(this.#varint())) return false;
      } else if (tag === FIRST_TEXT || tag === SECOND_TEXT) {
        destinations++;
        if (!(tag === FIRST_TEXT ? this.#namespacedHostname(stop) : this.#networkAddress(stop))) return false;
      } else return false;
    }
    return this.#at === stop && destinations === 1;
  }

  #namespacedHostname(end: number): boolean {
    const stop = this.#piece(end);
    while (this.#at < stop) {
      const tag = this.#varint();
      if ((tag !== FIRST_TEXT && tag !== SECOND_TEXT) || !this.#skip(stop)) return false;
    }
    return this.#at === stop;
  }

  #networkAddress(end: number): boolean {
    const stop = this.#piece(end);
    let length = 0;
    while (this.#at < stop) {
      const tag = this.#varint();
      const from = this.#at;
      if ((tag !== FIRST_TEXT && tag !== SECOND_TEXT) || !this.#skip(stop)) return false;
      // An address is shorter than 128 bytes, so its length is one of them.
      if (tag === SECOND_TEXT) length = this.#at - from - 1;
    }
    return this.#at === stop && (length === 4 || length === 16);
  }

  /** An entry of the map of services: a key, and a list of ports. */
  #service(end: number): boolean {
    const stop = this.#piece(end);
    const number = this.services.length;
    if (stop < 0 || number === MAX_SERVICES || this.#varint() !== FIRST_TEXT) return false;
    const keyEnd = this.#piece(stop);
    const keyStart = this.#at;
    if (keyEnd < 0 || !isServiceKey(this.#bytes, keyStart, keyEnd)) return false;
    const hash = hashAscii(this.#seed, keyKinds.endpoints, this.#bytes, keyStart, keyEnd);
    for (let i = 0; i < number; i++) if (this.#serviceHashes[i] === hash) return false;
    this.#at = keyEnd;
    if (this.#varint() !== SECOND_TEXT || this.#piece(stop) !== stop || !this.#portList(stop)) return false;
    this.#serviceHashes[number] = hash;
    this.#servicePorts[number] = this.#madeHash(keyKinds.endpoints);
    this.services.push(this.#textAt(keyStart, keyEnd, hash));
    return true;
  }

  /** Makes the text of the ports, as `portsHash` hashes it. */
  #portList(end: number): boolean {
    this.#madeEnd = 0;
    let count = 0;
    while (this.#at < end) {
      if (this.#varint() !== FIRST_TEXT) return false;
      const stop = this.#piece(end);
      if (stop < 0 || count === MAX_PORTS) return false;
      let service = 0;
      let target = 0;
      while (this.#at < stop) {
        const tag = this.#varint();
        const value = this.#varint();
        if (value < 0) return false;
        if (tag === FIRST_NUMBER) service = value;
        else if (tag === SECOND_NUMBER) target = value;
        // The protocol of an endpoint's port is its service's matter.
        else if (tag !== THIRD_NUMBER) return false;
      }
      if (this.#at !== stop || !isPort(service) || !isPort(target)) return false;
      for (let i = 0; i < count; i++) if (this.#ports[i] === service) return false;
      this.#ports[count++] = service;
      if (count > 1) this.#make(SPACE);
      this.#makeDecimal(service);
      this.#make(COMMA);
      this.#makeDecimal(target);
    }
    return this.#at === end;
  }

  /** @returns -1 for what is longer than four bytes, or beyond the end */
  #varint(): number {
    const bytes = this.#bytes;
    let value = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = bytes[this.#at++] ?? 0x80;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return -1;
  }

  /** @returns the number; -1 where it is not below the limit */
  #below(limit: number): number {
    const value = this.#varint();
    return value < limit ? value : -1;
  }

  #lengthOf(span: number): number {
    return (this.#spans[span + 1] ?? 0) - (this.#spans[span] ?? 0);
  }

  #textOf(span: number): string {
    return textOf(this.#bytes, this.#spans[span] ?? 0, this.#spans[span + 1] ?? 0);
  }

  #textAt(start: number, end: number, hash: number): string {
    const slot = hash % REMEMBERED_TEXTS;
    const known = this.#texts[slot] ?? '';
    if (isText(this.#bytes, start, end, known)) return known;
    const text = textOf(this.#bytes, start, end);
    this.#texts[slot] = text;
    return text;
  }

  #hash(kind: KeyKind, first: number, second = NO_SPAN): number {
    const bytes = this.#bytes;
    const spans = this.#spans;
    return hashAscii(this.#seed, kind, bytes, spans[first] ?? 0, spans[first + 1] ?? 0, bytes, spans[second] ?? 0, spans[second + 1] ?? 0);
  }

  #addressHash(i: number): number {
    const start = this.#addresses[i * 2] ?? 0;
    const end = this.#addresses[i * 2 + 1] ?? 0;
    this.#madeEnd = 0;
    if (end - start === 4) {
      for (let at = start; at < end; at++) {
        if (at > start) this.#make(DOT);
        this.#makeDecimal(this.#bytes[at] ?? 0);
      }
    } else {
      const text = ipFromBytes(this.#bytes.subarray(start, end)) ?? '';
      for (let at = 0; at < text.length; at++) this.#make(text.charCodeAt(at));
    }
    const [from, to] = [this.#spans[spans.network] ?? 0, this.#spans[spans.network + 1] ?? 0];
    return hashAscii(this.#seed, keyKinds.workloadAddress, this.#bytes, from, to, this.#made, 0, this.#madeEnd);
  }

  #madeHash(kind: KeyKind): number {
    return hashAscii(this.#seed, kind, this.#made, 0, this.#madeEnd);
  }

  #make(character: number): void {
    this.#made[this.#madeEnd++] = character;
  }

  #makeDecimal(value: number): void {
    let power = 1;
    while (power * 10 <= value) power *= 10;
    for (; power >= 1; power /= 10) this.#make(ZERO + (Math.trunc(value / power) % 10));
  }
}

// Each takes two numbers.
const spans = { name: 0, namespace: 2, network: 4, node: 6, cluster: 8, uid: 10, hostname: 12, region: 14, zone: 16, subzone: 18 } as const;
/** Always empty. */
const NO_SPAN = 20;
const SPAN_WORDS = 22;
/** Of `placeScopes`. */
const PLACES = [spans.network, spans.region, spans.zone, spans.subzone, spans.node, spans.cluster] as const;
const CLUSTER = PLACES.indexOf(spans.cluster);

/** Of istio.workload.Workload: number of the field, and how it is written. */
const tags = {
  name: 10,
  namespace: 18,
  address: 26,
  network: 34,
  tunnelProtocol: 40,
  trustDomain: 50,
  serviceAccount: 58,
  waypoint: 66,
  node: 74,
  canonicalName: 82,
  canonicalRevision: 90,
  workloadType: 96,
  workloadName: 106,
  nativeTunnel: 112,
  authorizationPolicy: 130,
  status: 136,
  clusterId: 146,
  networkGateway: 154,
  uid: 162,
  hostname: 170,
  service: 178,
  applicationTunnel: 186,
  locality: 194,
  networkMode: 200,
  extension: 210,
  capacity: 218,
} as const;

// Tags of the first three fields of the smaller messages: numbers, and what has a length.
const FIRST_NUMBER = 8;
const SECOND_NUMBER = 16;
const THIRD_NUMBER = 24;
const FIRST_TEXT = 10;
const SECOND_TEXT = 18;
const THIRD_TEXT = 26;

// More than these takes the long way.
const MAX_ADDRESSES = 8;
const MAX_SERVICES = 32;
const MAX_PORTS = 64;
const REMEMBERED_TEXTS = 2048;

const SPACE = 0x20;
const COMMA = 0x2c;
const DOT = 0x2e;
const SLASH = 0x2f;
const ZERO = 0x30;

const isPort = (value: number): boolean => value >= 0 && value <= 65_535;

/** Of ASCII, with a slash in it. */
function isServiceKey(bytes: Uint8Array, start: number, end: number): boolean {
  let slash = false;
  for (let i = start; i < end; i++) {
    const byte = bytes[i] ?? 0x80;
    if (byte >= 0x80) return false;
    if (byte === SLASH) slash = true;
  }
  return slash;
}

function isText(bytes: Uint8Array, start: number, end: number, text: string): boolean {
  if (text.length !== end - start) return false;
  for (let i = 0; i < text.length; i++) if (bytes[start + i] !== text.charCodeAt(i)) return false;
  return true;
}

const textOf = (bytes: Uint8Array, start: number, end: number): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('latin1');
