/**
 * tar, as much of it as images and Debian packages need: ustar with the long names of GNU and of pax read, ustar with pax names written. What
 * is written depends on the entries alone (no clock, no user, no order of a folder's listing), so that the same input gives the same digest.
 */
export interface Entry {
  /** Without a leading slash, folders without a trailing one: `usr/bin/nft`. */
  readonly path: string;
  readonly type: 'file' | 'folder' | 'symlink';
  /** Permission bits. */
  readonly mode: number;
  readonly content?: Buffer;
  /** Target of a symlink, as it is written. */
  readonly target?: string;
}

const BLOCK = 512;
const LAYOUT = {
  name: [0, 100],
  mode: [100, 8],
  size: [124, 12],
  type: [156, 1],
  link: [157, 100],
  magic: [257, 6],
  prefix: [345, 155],
} as const;

/**
 * @param archive an uncompressed tar, whole
 * @returns its entries in order; hard links become files of their own
 * @throws {Error} at a type that no Debian package has (devices), and where the archive ends within an entry
 */
export function readTar(archive: Buffer): Entry[] {
  const entries: Entry[] = [];
  const files = new Map<string, Entry>();
  let longName: string | undefined;
  let longLink: string | undefined;
  for (let at = 0; at + BLOCK <= archive.length; ) {
    const header = archive.subarray(at, at + BLOCK);
    if (header.every((byte) => byte === 0)) break;
    const type = text(header, 'type');
    const size = Number.parseInt(text(header, 'size').trim() || '0', 8);
    const content = archive.subarray(at + BLOCK, at + BLOCK + size);
    if (content.length < size) throw new Error(`tar ends within ${text(header, 'name')}`);
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
    if (type === 'L') longName = cString(content);
    else if (type === 'K') longLink = cString(content);
    else if (type === 'x') {
      const records = paxRecords(content);
      longName = records.get('path');
      longLink = records.get('linkpath');
    } else if (type === 'g') throw new Error('tar: a global pax header, which nothing here writes');
    else {
      const prefix = text(header, 'magic') === 'ustar' ? text(header, 'prefix') : '';
      const path = cleanPath(longName ?? (prefix === '' ? text(header, 'name') : `${prefix}/${text(header, 'name')}`));
      const entry = toEntry(
        type,
        path,
        Number.parseInt(text(header, 'mode'), 8) & 0o7777,
        content,
        longLink ?? text(header, 'link'),
        files,
      );
      if (entry.path !== '') entries.push(entry);
      if (entry.type === 'file') files.set(path, entry);
      longName = undefined;
      longLink = undefined;
    }
  }
  return entries;
}

function toEntry(type: string, path: string, mode: number, content: Buffer, link: string, files: ReadonlyMap<string, Entry>): Entry {
  switch (type) {
    case '':
    case '0':
      return { path, type: 'file', mode, content };
    case '5':
      return { path, type: 'folder', mode };
    case '2':
      return { path, type: 'symlink', mode: 0o777, target: link };
    case '1': {
      const original = files.get(cleanPath(link));
      if (!original) throw new Error(`tar: ${path} is a hard link to ${link}, which is not before it`);
      return { ...original, path };
    }
    default:
      throw new Error(`tar: ${path} has type ${type}`);
  }
}

const text = (header: Buffer, field: keyof typeof LAYOUT): string =>
  cString(header.subarray(LAYOUT[field][0], LAYOUT[field][0] + LAYOUT[field][1]));

function cString(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end === -1 ? bytes.length : end);
}

/** POSIX pax, "Extended Header": `LENGTH KEY=VALUE\n`, the length counting the whole record. */
function paxRecords(content: Buffer): Map<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < content.length; ) {
    const [, digits, key] = /^(\d+) ([^=]+)=/.exec(content.toString('latin1', at, at + 64)) ?? [];
    const length = Number(digits);
    if (key === undefined || !(length > 0) || at + length > content.length) throw new Error('tar: a pax record that cannot be read');
    records.set(key, content.toString('utf8', at + (digits?.length ?? 0) + key.length + 2, at + length - 1));
    at += length;
  }
  return records;
}

const cleanPath = (path: string): string =>
  path
    .replace(/^(\.?\/)+/, '')
    .replace(/\/+$/, '')
    .replace(/^\.$/, '');

/**
 * The blocks of an archive, owner 0:0 and one time for all; folders that are only implied are written too, with mode 0755.
 * @param epochS modification time of every entry, in seconds since 1970
 * @throws {Error} where two entries have the same path and differ
 */
export function* writeTar(entries: readonly Entry[], epochS: number): Generator<Buffer> {
  for (const entry of complete(entries)) {
    const content = entry.type === 'file' ? (entry.content ?? Buffer.alloc(0)) : Buffer.alloc(0);
    yield* header(entry, content.length, epochS);
    yield content;
    yield padding(content.length);
  }
  yield Buffer.alloc(2 * BLOCK);
}

/** Sorted, without doubles, with all folders on the way. */
export function complete(entries: readonly Entry[]): Entry[] {
  const byPath = new Map<string, Entry>();
  for (const entry of entries) {
    const other = byPath.get(entry.path);
    if (other && !same(other, entry)) throw new Error(`two different entries for /${entry.path}`);
    byPath.set(entry.path, entry);
  }
  for (const { path } of entries) {
    for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) {
      const folder = path.slice(0, end);
      if (!byPath.has(folder)) byPath.set(folder, { path: folder, type: 'folder', mode: 0o755 });
    }
  }
  return [...byPath.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

function same(a: Entry, b: Entry): boolean {
  if (a.type !== b.type || a.mode !== b.mode) return false;
  return a.target === b.target && Buffer.compare(a.content ?? Buffer.alloc(0), b.content ?? Buffer.alloc(0)) === 0;
}

export const padding = (size: number): Buffer => Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);

/** Header of a regular file whose content follows by other means. */
export const fileHeader = (path: string, size: number, epochS: number): Buffer[] => [
  ...header({ path, type: 'file', mode: 0o644 }, size, epochS),
];

function* header(entry: Entry, size: number, epochS: number): Generator<Buffer> {
  const path = entry.type === 'folder' ? `${entry.path}/` : entry.path;
  const target = entry.target ?? '';
  const records: string[] = [];
  if (Buffer.byteLength(path) > 100) records.push(paxRecord('path', path));
  if (Buffer.byteLength(target) > 100) records.push(paxRecord('linkpath', target));
  if (records.length > 0) {
    const pax = Buffer.from(records.join(''));
    yield block({ path: 'pax', mode: 0o644, type: 'x', size: pax.length, target: '', epochS });
    yield pax;
    yield padding(pax.length);
  }
  const type = { file: '0', folder: '5', symlink: '2' }[entry.type];
  yield block({ path, mode: entry.mode, type, size, target, epochS });
}

/** A record counts its own length, whose digits belong to it. POSIX pax, "Extended Header". */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const bytes = Buffer.byteLength(rest);
  let length = bytes;
  while (length !== bytes + String(length).length) length = bytes + String(length).length;
  return `${length}${rest}`;
}

interface Block {
  readonly path: string;
  readonly mode: number;
  readonly type: string;
  readonly size: number;
  readonly target: string;
  readonly epochS: number;
}

function block({ path, mode, type, size, target, epochS }: Block): Buffer {
  const out = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, width: number): number => out.write(value.toString(8).padStart(width - 1, '0'), at, 'latin1');
  Buffer.from(path).copy(out, 0, 0, 100);
  octal(mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(size, 124, 12);
  octal(epochS, 136, 12);
  out.fill(' ', 148, 156);
  out.write(type, 156, 'latin1');
  Buffer.from(target).copy(out, 157, 0, 100);
  out.write('ustar\x0000', 257, 'latin1');
  let sum = 0;
  for (const byte of out) sum += byte;
  out.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return out;
}
