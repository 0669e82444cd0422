/** Images of one program, as `docker save` writes them: for the sandbox image of our clusters, and for tests of loading. */
import { createHash } from 'node:crypto';
import { type Entry, writeTar } from '../../images/tar.ts';

export interface ImageConfig {
  readonly name: string;
  readonly entrypoint: readonly string[];
  readonly user: string;
}

const ARCHITECTURE = process.arch === 'arm64' ? 'arm64' : 'amd64';

/** @returns a Docker archive with one layer, in which the program lies where the entrypoint says */
export function imageArchive({ name, entrypoint, user }: ImageConfig, program: Buffer): Buffer {
  const layer = tar([{ path: (entrypoint[0] ?? '').slice(1), type: 'file', mode: 0o755, content: program }]);
  const digest = createHash('sha256').update(layer).digest('hex');
  const config = json({
    architecture: ARCHITECTURE,
    os: 'linux',
    config: { Entrypoint: entrypoint, User: user },
    rootfs: { type: 'layers', diff_ids: [`sha256:${digest}`] },
  });
  const manifest = json([{ Config: 'config.json', RepoTags: [name], Layers: ['layer.tar'] }]);
  return tar([file('config.json', config), file('layer.tar', layer), file('manifest.json', manifest)]);
}

const file = (path: string, content: Buffer): Entry => ({ path, type: 'file', mode: 0o644, content });

const tar = (entries: readonly Entry[]): Buffer => Buffer.concat([...writeTar(entries, 0)]);

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
