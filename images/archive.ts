/**
 * An image as one file that Docker, containerd and podman load: the layout of the OCI image specification, and beside it the `manifest.json` of
 * `docker save`, both naming the same blobs. An archive can hold several images, whose common layers it has once.
 * @see OCI image specification, image-layout.md, manifest.md, config.md
 */
import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync, renameSync, writeSync } from 'node:fs';
import type { Architecture } from './components.ts';
import { EPOCH_S, type Layer } from './layer.ts';
import { fileHeader, padding } from './tar.ts';

export interface ImageConfig {
  readonly architecture: Architecture;
  readonly user: string;
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly env: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

export interface Image {
  /** `warren/ztunnel:0.1.0` */
  readonly reference: string;
  readonly settings: ImageConfig;
  readonly config: Buffer;
  readonly manifest: Buffer;
  readonly layers: readonly Layer[];
}

const created = new Date(EPOCH_S * 1000).toISOString().replace('.000', '');

export function image(reference: string, config: ImageConfig, layers: readonly Layer[]): Image {
  const configBlob = json({
    created,
    architecture: config.architecture,
    os: 'linux',
    config: {
      User: config.user,
      Env: config.env,
      Entrypoint: config.entrypoint,
      ...(config.command.length > 0 && { Cmd: config.command }),
      WorkingDir: '/',
      Labels: config.labels,
    },
    rootfs: { type: 'layers', diff_ids: layers.map(({ digest }) => `sha256:${digest}`) },
    history: layers.map(({ name }) => ({ created, created_by: `scripts/images: ${name}` })),
  });
  const manifest = json({
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(configBlob), size: configBlob.length },
    layers: layers.map(({ digest, bytes }) => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar',
      digest: `sha256:${digest}`,
      size: bytes,
    })),
  });
  return { reference, settings: config, config: configBlob, manifest, layers };
}

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

/** What people pin: `sha256:` of the manifest. */
export const imageDigest = ({ manifest }: Image): string => digestOf(manifest);

/** What `docker images` shows: `sha256:` of the configuration. */
export const imageId = ({ config }: Image): string => digestOf(config);

/** @param file written beside and renamed, so that a reader sees a whole archive or none */
export function writeArchive(file: string, images: readonly Image[]): void {
  const temporary = `${file}.${process.pid}.tmp`;
  const out = openSync(temporary, 'w');
  try {
    write(out, 'oci-layout', json({ imageLayoutVersion: '1.0.0' }));
    write(
      out,
      'index.json',
      json({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: images.map(descriptor) }),
    );
    write(
      out,
      'manifest.json',
      json(
        images.map(({ reference, config, layers }) => ({
          Config: blobPath(digestOf(config)),
          RepoTags: [reference],
          Layers: layers.map(({ digest }) => blobPath(`sha256:${digest}`)),
        })),
      ),
    );
    const written = new Set<string>();
    for (const { config, manifest, layers } of images) {
      for (const blob of [config, manifest]) write(out, blobPath(digestOf(blob)), blob);
      for (const layer of layers) {
        if (!written.has(layer.digest)) copy(out, layer);
        written.add(layer.digest);
      }
    }
    writeAll(out, Buffer.alloc(1024));
  } finally {
    closeSync(out);
  }
  renameSync(temporary, file);
}

const descriptor = ({ reference, manifest }: Image): object => ({
  mediaType: MANIFEST,
  digest: digestOf(manifest),
  size: manifest.length,
  // The first is containerd's, the other the specification's.
  annotations: {
    'io.containerd.image.name': `docker.io/${reference}`,
    'org.opencontainers.image.ref.name': reference.split(':').pop() ?? '',
  },
});

const blobPath = (digest: string): string => `blobs/${digest.replace(':', '/')}`;

function write(out: number, path: string, content: Buffer): void {
  for (const part of [...fileHeader(path, content.length, EPOCH_S), content, padding(content.length)]) writeAll(out, part);
}

const CHUNK = 4 << 20;

function copy(out: number, { file, digest, bytes }: Layer): void {
  for (const part of fileHeader(blobPath(`sha256:${digest}`), bytes, EPOCH_S)) writeAll(out, part);
  const input = openSync(file, 'r');
  const chunk = Buffer.allocUnsafe(CHUNK);
  try {
    for (let read = readSync(input, chunk); read > 0; read = readSync(input, chunk)) writeAll(out, chunk.subarray(0, read));
  } finally {
    closeSync(input);
  }
  writeAll(out, padding(bytes));
}

function writeAll(out: number, content: Buffer): void {
  for (let at = 0; at < content.length; ) at += writeSync(out, content, at);
}

const digestOf = (blob: Buffer): string => `sha256:${createHash('sha256').update(blob).digest('hex')}`;

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
