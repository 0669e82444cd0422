/** A pod's volumes: folders under the playground's state, and paths of the node. What comes from the API is written anew when it changes. */
import { chmodSync, lstatSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Clock } from '../../common/base/clock.ts';
import type { Cluster } from '../cluster/collections.ts';
import type { ClusterNode } from '../node/node.ts';
import type { ConfigMap, ConfigMapSource, DownwardFile, KeyToPath, Pod, ProjectedSource, Secret, TokenSource, Volume } from '../objects.ts';
import { AtomicFolder, type FileContent } from './atomic-folder.ts';
import { podField, resourceField } from './environment.ts';

const DEFAULT_MODE = 0o644;
/** The kubelet renews a token when a fifth of its life is left, and daily. */
const RENEW_AT = 0.8;
const LONGEST_TOKEN_MS = 24 * 3_600_000;

/** A volume cannot be mounted (yet): the pod waits, and an event says why. */
export class VolumeError extends Error {}

export interface VolumesOptions {
  readonly folder: string;
  readonly node: ClusterNode;
  readonly cluster: Cluster;
  readonly clock: Clock;
  /** The pod as it is now, addresses in its status. */
  readonly pod: () => Pod;
}

export class PodVolumes {
  readonly #options: VolumesOptions;
  readonly #folders = new Map<string, AtomicFolder>();
  readonly #tokens = new Map<string, { token: string; renewAtMs: number }>();

  constructor(options: VolumesOptions) {
    this.#options = options;
  }

  /** Makes what is missing and updates what changed. @throws {VolumeError} naming the volume */
  prepare(): void {
    const pod = this.#options.pod();
    for (const volume of pod.spec.volumes ?? []) {
      try {
        this.#prepare(pod, volume);
      } catch (error) {
        throw new VolumeError(
          `MountVolume.SetUp failed for volume "${volume.name}" : ${error instanceof Error ? error.message : String(error)}`,
        );
      }
    }
  }

  /** Where the volume is on the node. */
  source(name: string): string {
    const volume = this.#volumes().find((candidate) => candidate.name === name);
    if (!volume) throw new VolumeError(`volume "${name}" not found`);
    return volume.hostPath ? volume.hostPath.path : this.#path(name);
  }

  uses(kind: 'ConfigMap' | 'Secret', name: string): boolean {
    return this.#volumes().some((volume) =>
      kind === 'ConfigMap'
        ? volume.configMap?.name === name || volume.projected?.sources?.some(({ configMap }) => configMap?.name === name)
        : volume.secret?.secretName === name || volume.projected?.sources?.some(({ secret }) => secret?.name === name),
    );
  }

  #volumes(): readonly Volume[] {
    return this.#options.pod().spec.volumes ?? [];
  }

  #path = (name: string): string => join(this.#options.folder, name);

  #prepare(pod: Pod, volume: Volume): void {
    if (volume.hostPath) {
      prepareHostPath(this.#options.node, volume.hostPath);
      return;
    }
    if (volume.emptyDir) {
      mkdirSync(this.#path(volume.name), { recursive: true });
      chmodSync(this.#path(volume.name), 0o777);
      return;
    }
    const files = this.#files(pod, volume);
    if (!files) throw new Error('this kind of volume does not exist in the playground');
    let folder = this.#folders.get(volume.name);
    if (!folder) {
      folder = new AtomicFolder(this.#path(volume.name));
      this.#folders.set(volume.name, folder);
    }
    folder.write(files);
  }

  #files(pod: Pod, volume: Volume): Map<string, FileContent> | undefined {
    const mode =
      volume.configMap?.defaultMode ?? volume.secret?.defaultMode ?? volume.projected?.defaultMode ?? volume.downwardAPI?.defaultMode;
    const files = new Map<string, FileContent>();
    if (volume.configMap) this.#configMap(pod, volume.configMap, mode, files);
    else if (volume.secret) this.#secret(pod, { ...volume.secret, name: volume.secret.secretName ?? '' }, mode, files);
    else if (volume.downwardAPI) downward(pod, volume.downwardAPI.items ?? [], mode, files);
    else if (volume.projected) for (const source of volume.projected.sources ?? []) this.#projected(pod, volume.name, source, mode, files);
    else return undefined;
    return files;
  }

  #projected(pod: Pod, volume: string, source: ProjectedSource, mode: number | undefined, files: Map<string, FileContent>): void {
    if (source.configMap) this.#configMap(pod, source.configMap, mode, files);
    if (source.secret) this.#secret(pod, source.secret, mode, files);
    if (source.downwardAPI) downward(pod, source.downwardAPI.items ?? [], mode, files);
    if (source.serviceAccountToken) {
      const { path } = source.serviceAccountToken;
      files.set(path, { content: Buffer.from(this.#token(pod, volume, source.serviceAccountToken)), mode: mode ?? DEFAULT_MODE });
    }
  }

  #configMap(pod: Pod, source: ConfigMapSource, mode: number | undefined, files: Map<string, FileContent>): void {
    const found = this.#options.cluster.configMaps.get(pod.metadata.namespace ?? '', source.name ?? '');
    if (!found && !source.optional) throw new Error(`configmap "${source.name}" not found`);
    addItems(configMapContents(found), source.items, source.optional, mode, files, `configmap "${source.name}"`);
  }

  #secret(pod: Pod, source: ConfigMapSource, mode: number | undefined, files: Map<string, FileContent>): void {
    const found = this.#options.cluster.secrets.get(pod.metadata.namespace ?? '', source.name ?? '');
    if (!found && !source.optional) throw new Error(`secret "${source.name}" not found`);
    addItems(secretContents(found), source.items, source.optional, mode, files, `secret "${source.name}"`);
  }

  #token(pod: Pod, volume: string, { path, audience, expirationSeconds = 3600 }: TokenSource): string {
    const key = `${volume}/${path}`;
    const now = this.#options.clock.now();
    const held = this.#tokens.get(key);
    if (held && now < held.renewAtMs) return held.token;
    const token = this.#options.cluster.issueToken({
      namespace: pod.metadata.namespace ?? '',
      serviceAccount: pod.spec.serviceAccountName ?? 'default',
      audiences: audience === undefined || audience === '' ? [] : [audience],
      expirationSeconds,
      boundPod: { name: pod.metadata.name, uid: pod.metadata.uid ?? '', nodeName: this.#options.node.plan.name },
    });
    const renewAtMs = now + Math.min(expirationSeconds * 1000 * RENEW_AT, LONGEST_TOKEN_MS);
    this.#tokens.set(key, { token, renewAtMs });
    return token;
  }
}

function prepareHostPath(node: ClusterNode, { path, type = '' }: { path: string; type?: string }): void {
  const real = node.path(path);
  const found = lstatSync(real, { throwIfNoEntry: false });
  if (!found && (type === '' || type === 'DirectoryOrCreate')) mkdirSync(real, { recursive: true });
  else if (!found && type === 'FileOrCreate') {
    mkdirSync(dirname(real), { recursive: true });
    writeFileSync(real, '');
  } else if (!found) throw new Error(`hostPath type check failed: ${path} does not exist on ${node.plan.name}`);
  else if (type.startsWith('Directory') && !found.isDirectory()) throw new Error(`hostPath type check failed: ${path} is not a directory`);
  else if (type.startsWith('File') && !found.isFile()) throw new Error(`hostPath type check failed: ${path} is not a file`);
  else if (type === 'Socket' && !found.isSocket()) throw new Error(`hostPath type check failed: ${path} is not a socket file`);
}

function downward(pod: Pod, items: readonly DownwardFile[], mode: number | undefined, files: Map<string, FileContent>): void {
  for (const item of items) {
    const [container] = pod.spec.containers;
    const content = item.fieldRef
      ? podField(pod, item.fieldRef.fieldPath)
      : item.resourceFieldRef && container
        ? resourceField(pod, container, item.resourceFieldRef)
        : '';
    files.set(item.path, { content: Buffer.from(content), mode: item.mode ?? mode ?? DEFAULT_MODE });
  }
}

function addItems(
  contents: ReadonlyMap<string, Buffer>,
  items: readonly KeyToPath[] | undefined,
  optional: boolean | undefined,
  mode: number | undefined,
  files: Map<string, FileContent>,
  about: string,
): void {
  const chosen: readonly KeyToPath[] = items ?? [...contents.keys()].map((key) => ({ key, path: key }));
  for (const item of chosen) {
    const content = contents.get(item.key);
    if (content) files.set(item.path, { content, mode: item.mode ?? mode ?? DEFAULT_MODE });
    else if (!optional) throw new Error(`${about} has no key "${item.key}"`);
  }
}

const configMapContents = (map: ConfigMap | undefined): Map<string, Buffer> =>
  new Map([
    ...Object.entries(map?.data ?? {}).map(([key, text]) => [key, Buffer.from(text)] as const),
    ...Object.entries(map?.binaryData ?? {}).map(([key, text]) => [key, Buffer.from(text, 'base64')] as const),
  ]);

const secretContents = (secret: Secret | undefined): Map<string, Buffer> =>
  new Map(Object.entries(secret?.data ?? {}).map(([key, text]) => [key, Buffer.from(text, 'base64')] as const));
