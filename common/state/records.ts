/**
 * How resources and lists lie in blocks. A resource is kept as the bytes that came over xDS, with its name and version behind it; a list
 * (the endpoints of a service, the policies of a namespace) is an array of references under its key. Nothing is changed once written.
 */
import type { Arena, ArenaView, BlockKind, BlockRef } from './arena.ts';
import { kinds } from './arena.ts';

/** A resource as xDS names it. */
export interface ResourceRecord {
  readonly bytes: Uint8Array;
  readonly name: string;
  readonly version: string;
}

// Words of a resource: hash of its own key, length of its bytes, of its name, of its version; then these three.
const RESOURCE_WORDS = 4;

/**
 * @param keyHash of the key that this kind of resource is unique by
 * @throws {ArenaFull}
 */
export function writeResource(arena: Arena, kind: BlockKind, keyHash: number, { bytes, name, version }: ResourceRecord): BlockRef {
  const nameLength = Buffer.byteLength(name);
  const versionLength = Buffer.byteLength(version);
  const size = RESOURCE_WORDS * 4 + bytes.length + nameLength + versionLength;
  arena.demand(size);
  const ref = arena.allocate(kind, size);
  arena.setWord(ref, 0, keyHash);
  arena.setWord(ref, 1, bytes.length);
  arena.setWord(ref, 2, nameLength);
  arena.setWord(ref, 3, versionLength);
  arena.setBytes(ref, RESOURCE_WORDS * 4, bytes);
  writeText(arena, ref, RESOURCE_WORDS * 4 + bytes.length, name, nameLength);
  writeText(arena, ref, RESOURCE_WORDS * 4 + bytes.length + nameLength, version, versionLength);
  return ref;
}

function writeText(arena: Arena, ref: BlockRef, start: number, text: string, length: number): void {
  if (length === text.length) arena.setAscii(ref, start, text);
  else arena.setBytes(ref, start, Buffer.from(text));
}

/** Hash of the resource's own key: tells the entry that it is counted under from its other ones. */
export const resourceKeyHash = (arena: ArenaView, ref: BlockRef): number => arena.word(ref, 0);

/** The resource as it came. Good until the next call (see ArenaView.bytes). */
export const resourceBytes = (arena: ArenaView, ref: BlockRef): Uint8Array => arena.bytes(ref, RESOURCE_WORDS * 4, arena.word(ref, 1));

/** The name that xDS gave it. */
export function resourceName(arena: ArenaView, ref: BlockRef): string {
  return arena.text(ref, RESOURCE_WORDS * 4 + arena.word(ref, 1), arena.word(ref, 2));
}

/** The version that xDS gave it; empty for types without. */
export function resourceVersion(arena: ArenaView, ref: BlockRef): string {
  return arena.text(ref, RESOURCE_WORDS * 4 + arena.word(ref, 1) + arena.word(ref, 2), arena.word(ref, 3));
}

/** Whether the same bytes came again, under the same name. */
export function sameResource(arena: ArenaView, ref: BlockRef, { bytes, name }: Pick<ResourceRecord, 'bytes' | 'name'>): boolean {
  const length = arena.word(ref, 1);
  return (
    length === bytes.length &&
    arena.holdsText(ref, RESOURCE_WORDS * 4 + length, arena.word(ref, 2), name) &&
    Buffer.compare(resourceBytes(arena, ref), bytes) === 0
  );
}

// Words of a list: number of items, words of each item, length of the key in bytes, largest second word; then the items, then the key.
const LIST_WORDS = 4;

/**
 * A list under a key. Items have `width` words each, the first of which is a reference.
 * @param items all words of all items
 * @throws {ArenaFull}
 */
export function writeList(arena: Arena, key: string, width: number, items: Uint32Array): BlockRef {
  const keyBytes = Buffer.from(key);
  const list = arena.allocate(kinds.list, (LIST_WORDS + items.length) * 4 + keyBytes.length);
  arena.setWord(list, 0, items.length / width);
  arena.setWord(list, 1, width);
  arena.setWord(list, 2, keyBytes.length);
  let largest = 0;
  for (let at = 1; width > 1 && at < items.length; at += width) largest = Math.max(largest, items[at] ?? 0);
  arena.setWord(list, 3, largest);
  arena.setWords(list, LIST_WORDS, items);
  arena.setBytes(list, (LIST_WORDS + items.length) * 4, keyBytes);
  return list;
}

/** Number of items. */
export const listLength = (arena: ArenaView, list: BlockRef): number => arena.word(list, 0);

/** The largest second word of any item; 0 where items have one word. */
export const listLargest = (arena: ArenaView, list: BlockRef): number => arena.word(list, 3);

/** One word of an item; the first is its reference. */
export const listWord = (arena: ArenaView, list: BlockRef, item: number, word: number): number =>
  arena.word(list, LIST_WORDS + item * arena.word(list, 1) + word);

/** Whether a block is the list of this key. */
export function isListOf(arena: ArenaView, list: BlockRef, key: string): boolean {
  if (arena.kind(list) !== kinds.list) return false;
  return arena.holdsText(list, (LIST_WORDS + listLength(arena, list) * arena.word(list, 1)) * 4, arena.word(list, 2), key);
}

/** References of all items. */
export function listRefs(arena: ArenaView, list: BlockRef): BlockRef[] {
  return Array.from({ length: listLength(arena, list) }, (_, i) => listWord(arena, list, i, 0));
}

/** All words of all items. */
export function listItems(arena: ArenaView, list: BlockRef): Uint32Array {
  return arena.words(list, LIST_WORDS, listLength(arena, list) * arena.word(list, 1));
}

/** A picture: where its index is, what there is at all. */
export interface Root {
  readonly directory: BlockRef;
  readonly mask: number;
  readonly workloads: number;
  readonly services: number;
  readonly policies: number;
  /** Prefix lengths that ranges of services have, as bits: 33 for IPv4, 129 for IPv6. */
  readonly prefixes4: Uint32Array;
  readonly prefixes6: Uint32Array;
}

/** 32-bit words for one bit of each prefix length of IPv4, 0 to 32. */
export const PREFIX_WORDS_4 = 2;
/** 32-bit words for one bit of each prefix length of IPv6, 0 to 128. */
export const PREFIX_WORDS_6 = 5;
const ROOT_WORDS = 5;

/** @throws {ArenaFull} */
export function writeRoot(arena: Arena, root: Root): BlockRef {
  const ref = arena.allocate(kinds.root, (ROOT_WORDS + PREFIX_WORDS_4 + PREFIX_WORDS_6) * 4);
  const words = [root.directory, root.mask, root.workloads, root.services, root.policies, ...root.prefixes4, ...root.prefixes6];
  for (const [i, word] of words.entries()) arena.setWord(ref, i, word);
  return ref;
}

/** A copy; what it refers to is good as long as the picture is pinned. */
export function readRoot(arena: ArenaView, ref: BlockRef): Root {
  const words = (start: number, count: number): Uint32Array => Uint32Array.from({ length: count }, (_, i) => arena.word(ref, start + i));
  return {
    directory: arena.word(ref, 0),
    mask: arena.word(ref, 1),
    workloads: arena.word(ref, 2),
    services: arena.word(ref, 3),
    policies: arena.word(ref, 4),
    prefixes4: words(ROOT_WORDS, PREFIX_WORDS_4),
    prefixes6: words(ROOT_WORDS + PREFIX_WORDS_4, PREFIX_WORDS_6),
  };
}
