/** Images from nothing: a tar of one layer, and the Docker archive around it that `ctr images import` reads. For the sandbox image of our clusters. */
import { createHash } from 'node:crypto';

export interface ArchivedFile {
  readonly path: string;
  readonly content: Buffer;
  readonly mode: number;
}

export interface ImageConfig {
  readonly name: string;
  readonly entrypoint: readonly string[];
  readonly user: string;
}

const BLOCK = 512;
const ARCHITECTURE = process.arch === 'arm64' ? 'arm64' : 'amd64';

/** @returns a Docker archive with one layer of these files */
export function imageArchive({ name, entrypoint, user }: ImageConfig, files: readonly ArchivedFile[]): Buffer {
  const layer = tar(files);
  const digest = createHash('sha256').update(layer).digest('hex');
  const config = json({
    architecture: ARCHITECTURE,
    os: 'linux',
    config: { Entrypoint: entrypoint, User: user },
    rootfs: { type: 'layers', diff_ids: [`sha256:${digest}`] },
  });
  const manifest = json([{ Config: 'config.json', RepoTags: [name], Layers: ['layer.tar'] }]);
  return tar([
    { path: 'config.json', content: config, mode: 0o644 },
    { path: 'layer.tar', content: layer, mode: 0o644 },
    { path: 'manifest.json', content: manifest, mode: 0o644 },
  ]);
}

/** A POSIX tar of regular files. @throws {Error} for a path beyond 100 bytes */
export function tar(files: readonly ArchivedFile[]): Buffer {
  const parts: Buffer[] = [];
  for (const { path, content, mode } of files) {
    parts.push(header(path, content.length, mode), content, Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK));
  }
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK)]);
}

function header(path: string, bytes: number, mode: number): Buffer {
  if (Buffer.byteLength(path) > 100) throw new Error(`${path} is too long for a tar`);
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, digits: number): void => {
    block.write(`${value.toString(8).padStart(digits, '0')}\0`, at);
  };
  block.write(path, 0);
  octal(mode, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(bytes, 124, 11);
  octal(0, 136, 11);
  block.write('        ', 148);
  block.write('0', 156);
  block.write('ustar\x0000', 257);
  block.write(
    `${block
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  );
  return block;
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
