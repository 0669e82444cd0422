/**
 * What is to be installed. Without values it is the manifest that travels with this program; with values Helm renders the chart, which travels
 * with it too. The folder `manifests` lies beside `meshctl`, in a checkout as in an image.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import yaml from 'js-yaml';
import type { KubeObject } from '../../common/client/kube-api.ts';
import { oneLine } from '../check/finding.ts';
import { CommandError } from '../command-error.ts';
import { INSTALLATION, inOrder, VERSION_LABEL } from './kinds.ts';

export interface SourceOptions {
  /** Namespace of the control plane. */
  readonly namespace: string;
  /** Files of values, as Helm's `-f`. */
  readonly values: readonly string[];
  /** `name=value`, as Helm's `--set`. */
  readonly set: readonly string[];
  /** For finding Helm. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

export interface Source {
  /** In the order in which they are applied. */
  readonly objects: readonly KubeObject[];
  /** Of Istio's kinds, for clusters without them. */
  readonly definitions: readonly KubeObject[];
  readonly version: string;
}

const MANIFESTS = join(import.meta.dirname, '../../manifests');
const CHART = join(MANIFESTS, 'charts/warren');
const DEFAULT_NAMESPACE = 'istio-system';
const OLDEST_KUBERNETES = '1.31.0';
const MAX_RENDERED_BYTES = 32 << 20;

/** @throws {CommandError} where the files are missing, or Helm is missing or refuses the values */
export function loadSource(options: SourceOptions): Source {
  const plain = options.values.length === 0 && options.set.length === 0 && options.namespace === DEFAULT_NAMESPACE;
  const objects = plain ? parse(read(join(MANIFESTS, 'install.yaml')), 'install.yaml') : withNamespace(render(options), options.namespace);
  const definitions = readdirSync(join(CHART, 'crds')).flatMap((file) => parse(read(join(CHART, 'crds', file)), file));
  const version = objects.map(({ metadata }) => metadata.labels?.[VERSION_LABEL]).find((label) => label !== undefined) ?? 'unknown';
  return { objects: inOrder(objects), definitions, version };
}

function render({ namespace, values, set, env }: SourceOptions): KubeObject[] {
  const flags = [...values.flatMap((file) => ['--values', file]), ...set.flatMap((pair) => ['--set', pair])];
  // The cluster's own version is looked at by the checks, which say what to do about it.
  const args = ['template', 'warren', CHART, '--namespace', namespace, '--kube-version', OLDEST_KUBERNETES, ...flags];
  const { status, stdout, stderr, error } = spawnSync('helm', args, { encoding: 'utf8', maxBuffer: MAX_RENDERED_BYTES, env: { ...env } });
  if (error && 'code' in error && error.code === 'ENOENT')
    throw new CommandError('values, or another namespace than istio-system, need helm on the PATH: install Helm 3.14 or newer');
  if (error) throw new CommandError(`helm could not be run: ${error.message}`);
  if (status !== 0) throw new CommandError(`helm refuses these values: ${complaint(stderr)}`);
  return parse(stdout, 'what helm rendered');
}

/** Helm's complaint without its preamble; one that has several lines names a value in each. */
function complaint(stderr: string): string {
  const lines = stderr.split('\n').map((line) => line.trim());
  const values = lines.filter((line) => line.startsWith('- '));
  return oneLine((values.length > 0 ? values.map((line) => line.slice(2)).join('; ') : stderr).replace(/^Error: /, ''));
}

/** Helm leaves the namespace to its user; labels as in the plain manifest. */
function withNamespace(objects: KubeObject[], name: string): KubeObject[] {
  const [namespace] = parse(read(join(MANIFESTS, 'install.yaml')), 'install.yaml').filter(({ kind }) => kind === 'Namespace');
  if (!namespace) throw new CommandError('install.yaml has no Namespace: this copy of meshctl is broken');
  const { labels } = namespace.metadata;
  return [{ ...namespace, metadata: { ...namespace.metadata, name, labels: { ...labels, [INSTALLATION]: name } } }, ...objects];
}

function parse(text: string, file: string): KubeObject[] {
  try {
    return yaml.loadAll(text, undefined, { filename: file }).filter(isObject);
  } catch (error) {
    throw new CommandError(`${file} cannot be read: ${error instanceof Error ? oneLine(error.message) : error}`);
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new CommandError(`${path} cannot be read (${error instanceof Error ? error.message : error}): this copy of meshctl is broken`);
  }
}

const isObject = (value: unknown): value is KubeObject =>
  typeof value === 'object' && value !== null && 'kind' in value && 'metadata' in value;
