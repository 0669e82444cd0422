/** A tar archive as ustar has it (POSIX.1-2017, pax, "ustar Interchange Format"): regular files, one after the other. */

export interface TarFile {
  /** Relative, with `/`. */
  readonly name: string;
  readonly content: Buffer;
}

const BLOCK = 512;

/** @param mtimeS seconds since 1970, of every file */
export function tar(files: readonly TarFile[], mtimeS: number): Buffer {
  const blocks = files.flatMap(({ name, content }) => [
    header(name, content.length, mtimeS),
    content,
    Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK),
  ]);
  return Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK)]);
}

function header(path: string, size: number, mtimeS: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  const [prefix, name] = split(path);
  block.write(name, 0, 100);
  block.write('0000600\0', 100);
  block.write('0000000\0', 108);
  block.write('0000000\0', 116);
  block.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
  block.write(`${Math.floor(mtimeS).toString(8).padStart(11, '0')}\0`, 136);
  // The sum is made as if its own field were spaces.
  block.write('        ', 148);
  block.write('0', 156);
  block.write('ustar\x0000', 257, 'latin1');
  block.write(prefix, 345, 155);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

/** @throws {RangeError} for a path that the format has no room for */
function split(path: string): [prefix: string, name: string] {
  if (Buffer.byteLength(path) <= 100) return ['', path];
  const slash = path.indexOf('/', path.length - 101);
  const [prefix, name] = [path.slice(0, slash), path.slice(slash + 1)];
  if (slash < 0 || Buffer.byteLength(prefix) > 155 || Buffer.byteLength(name) > 100)
    throw new RangeError(`${path} is too long for a tar archive`);
  return [prefix, name];
}
