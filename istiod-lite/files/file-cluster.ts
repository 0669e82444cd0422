/**
 * A folder of YAML files in the place of an API server: the objects of the files, watched; the CA's Secret and the key of the hosts' tokens in a
 * folder of their own, readable by nobody else; statuses, leases and ConfigMaps in memory. A file that cannot be read keeps what it had before.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, watch, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { type Clock, minutes, seconds, type Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import {
  KubeApiError,
  type KubeObject,
  type ListPage,
  type PatchOptions,
  type Query,
  type WatchEvent,
} from '../../common/client/kube-api.ts';
import type { ClusterApi } from '../kube/cluster-api.ts';
import { at, text, texts } from '../model/objects.ts';
import { EnrolmentTokens, newEnrolmentKey } from './enrolment-tokens.ts';
import { ObjectTable } from './object-table.ts';
import { type FileObject, readObjects } from './read-objects.ts';

export interface FileClusterOptions {
  /** Of the YAML files; folders in it are read too. */
  readonly directory: string;
  /** Of keys; made where it is missing. */
  readonly stateDirectory: string;
  readonly clock: Clock;
  readonly log: Log;
}

interface ReadFile {
  readonly stamp: string;
  readonly objects: readonly FileObject[];
}

const MAX_FILE_BYTES = 16 * 2 ** 20;
const SETTLED_MS = 100;
// Where the folder's file system tells nothing.
const LOOK_EVERY_MS = seconds(10);
const BOOKMARK_EVERY_MS = minutes(1);
const SECRETS = /^\/api\/v1\/namespaces\/[^/]+\/secrets/;
const TOKEN_REVIEWS = '/apis/authentication.k8s.io/v1/tokenreviews';

export class FileCluster implements ClusterApi {
  readonly #options: FileClusterOptions;
  readonly #table = new ObjectTable();
  readonly #files = new Map<string, ReadFile>();
  readonly #tokens: EnrolmentTokens;
  /** Problems that have been said. */
  #said = new Set<string>();
  #soon: Timer | undefined;
  #later: Timer | undefined;
  #unwatch: () => void = () => undefined;

  /** @throws Error naming the folder that cannot be read, or the problems of its files: a start with half of them would be another mesh */
  constructor(options: FileClusterOptions) {
    this.#options = options;
    mkdirSync(options.stateDirectory, { recursive: true, mode: 0o700 });
    this.#tokens = new EnrolmentTokens(enrolmentKey(options.stateDirectory));
    const secret = join(options.stateDirectory, 'secrets.json');
    if (existsSync(secret)) for (const object of readSecrets(secret)) this.#table.put('/api/v1/secrets', object);
    const problems = this.#read();
    if (problems.length > 0) throw new Error(`${options.directory}: ${problems.join('; ')}`);
    this.#watchFiles();
  }

  async get<T>(path: string): Promise<T> {
    return structuredClone(this.#table.get(path)) as T;
  }

  async create<T>(path: string, body: unknown): Promise<T> {
    if (path === TOKEN_REVIEWS) return this.#review(body) as T;
    const created = this.#table.create(path, structuredClone(body) as KubeObject);
    if (SECRETS.test(path)) this.#keepSecrets();
    return structuredClone(created) as T;
  }

  async replace<T>(path: string, body: unknown): Promise<T> {
    const replaced = this.#table.replace(path, structuredClone(body) as KubeObject);
    if (SECRETS.test(path)) this.#keepSecrets();
    return structuredClone(replaced) as T;
  }

  async patch<T>(path: string, body: unknown, options: PatchOptions): Promise<T> {
    const patched = this.#table.patch(path, structuredClone(body) as KubeObject, options);
    this.#sayStatus(patched, body);
    return structuredClone(patched) as T;
  }

  async delete(path: string): Promise<void> {
    throw new KubeApiError(405, 'MethodNotAllowed', `${path}: files are the operator's, and nobody else deletes what is in them`);
  }

  async listPage<T>(path: string, query: Query = {}): Promise<ListPage<T>> {
    return this.#table.list(path, query) as ListPage<T>;
  }

  async watch<T>(path: string, query: Query, onEvent: (event: WatchEvent<T>) => void, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { clock } = this.#options;
    const stop = this.#table.watch(path, query, (event) => onEvent(event as WatchEvent<T>));
    let timer: Timer;
    const bookmark = (): void => {
      timer = clock.after(BOOKMARK_EVERY_MS, () => {
        onEvent(this.#table.bookmark() as WatchEvent<T>);
        bookmark();
      });
    };
    bookmark();
    await new Promise<void>((_, reject) => {
      signal.addEventListener(
        'abort',
        () => {
          stop();
          timer.cancel();
          reject(signal.reason);
        },
        { once: true },
      );
    });
  }

  /** Why a file is not used; empty where all are. */
  get problems(): readonly string[] {
    return [...this.#said];
  }

  close(): void {
    this.#unwatch();
    this.#soon?.cancel();
    this.#later?.cancel();
  }

  #review(body: unknown): object {
    const audiences = texts(at(body, 'spec', 'audiences'));
    return { status: this.#tokens.review(text(at(body, 'spec', 'token')), audiences, this.#options.clock.now()) };
  }

  #watchFiles(): void {
    const { directory, clock, log } = this.#options;
    try {
      const watcher = watch(directory, { recursive: true }, () => {
        this.#soon?.cancel();
        this.#soon = clock.after(SETTLED_MS, () => this.#readAgain());
      });
      watcher.on('error', () => watcher.close());
      watcher.unref();
      this.#unwatch = () => watcher.close();
    } catch (error) {
      log.info({ directory, error: errorMessage(error) }, 'the folder cannot be watched, it is looked at every ten seconds');
    }
    this.#look();
  }

  #look(): void {
    this.#later = this.#options.clock.after(LOOK_EVERY_MS, () => {
      this.#readAgain();
      this.#look();
    });
  }

  #readAgain(): void {
    const { log, directory } = this.#options;
    let problems: readonly string[];
    try {
      problems = this.#read();
    } catch (error) {
      problems = [errorMessage(error)];
    }
    for (const problem of problems)
      if (!this.#said.has(problem)) log.error({ directory, error: problem }, 'a file is not used; what it said before stays');
    this.#said = new Set(problems);
  }

  /** Reads what has changed. @returns what is wrong */
  #read(): readonly string[] {
    const { directory } = this.#options;
    const problems: string[] = [];
    const present = listFiles(directory);
    for (const [file, stamp] of present) {
      if (this.#files.get(file)?.stamp === stamp) continue;
      const size = Number(stamp.split(' ')[0]);
      const name = relative(directory, file);
      const read =
        size > MAX_FILE_BYTES
          ? { objects: [], problems: [`${name}: ${size} bytes are more than the ${MAX_FILE_BYTES} that a file may have`] }
          : readObjects(name, readFileSync(file, 'utf8'));
      problems.push(...read.problems);
      if (read.problems.length === 0) this.#files.set(file, { stamp, objects: read.objects });
    }
    for (const file of this.#files.keys()) if (!present.has(file)) this.#files.delete(file);
    problems.push(...this.#apply());
    return problems;
  }

  /** The table holds what the files say. @returns what two files say differently */
  #apply(): string[] {
    const { directory } = this.#options;
    const problems: string[] = [];
    const wanted = new Map<string, { file: string; object: FileObject }>();
    for (const [file, { objects }] of [...this.#files].sort(([a], [b]) => (a < b ? -1 : 1))) {
      for (const object of objects) {
        const { namespace = '', name = '' } = object.object.metadata;
        const id = `${object.collection} ${namespace === '' ? name : `${namespace}/${name}`}`;
        const first = wanted.get(id);
        if (first)
          problems.push(
            `${relative(directory, file)}: ${object.object.kind} ${namespace}/${name} is in ${relative(directory, first.file)} too, which counts`,
          );
        else wanted.set(id, { file, object });
      }
    }
    for (const id of this.#applied) if (!wanted.has(id)) this.#table.remove(...splitId(id));
    for (const { object } of wanted.values()) this.#table.put(object.collection, object.object);
    this.#applied = new Set(wanted.keys());
    return problems;
  }

  #applied: ReadonlySet<string> = new Set();

  #keepSecrets(): void {
    const file = join(this.#options.stateDirectory, 'secrets.json');
    writePrivately(file, JSON.stringify(this.#table.list('/api/v1/secrets', {}).items));
  }

  /** There is no kubectl to ask here. */
  #sayStatus({ kind, metadata }: KubeObject, body: unknown): void {
    for (const condition of (at(body, 'status', 'conditions') as readonly Record<string, unknown>[] | undefined) ?? []) {
      const { type, status, reason, message } = condition;
      this.#options.log.info({ object: `${kind} ${metadata.namespace}/${metadata.name}`, type, status, reason, detail: message }, 'status');
    }
  }
}

/** `--host`'s token, made with the key in the state folder. @throws Error naming what is wrong */
export function issueHostToken(o: {
  stateDirectory: string;
  host: string;
  namespace: string;
  serviceAccount: string;
  lifetimeMs: number;
  now: number;
}): string {
  mkdirSync(o.stateDirectory, { recursive: true, mode: 0o700 });
  return new EnrolmentTokens(enrolmentKey(o.stateDirectory)).issue(o, o.now, o.now + o.lifetimeMs);
}

/** What hosts trust, for whoever brings it to them: public, beside what is not. */
export function keepRoots(stateDirectory: string, rootsPem: string): void {
  const file = join(stateDirectory, 'root-cert.pem');
  writeFileSync(`${file}.new`, rootsPem, { mode: 0o644 });
  renameSync(`${file}.new`, file);
}

function enrolmentKey(stateDirectory: string): string {
  const file = join(stateDirectory, 'enrolment-key.pem');
  if (!existsSync(file)) writePrivately(file, newEnrolmentKey());
  return readFileSync(file, 'utf8');
}

/** As a whole or not at all, and for its owner alone. */
function writePrivately(file: string, content: string): void {
  writeFileSync(`${file}.new`, content, { mode: 0o600 });
  chmodSync(`${file}.new`, 0o600);
  renameSync(`${file}.new`, file);
}

function readSecrets(file: string): KubeObject[] {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as KubeObject[];
  } catch (error) {
    throw new Error(`${file} cannot be read: ${errorMessage(error)}`, { cause: error });
  }
}

function splitId(id: string): [string, string] {
  const space = id.indexOf(' ');
  return [id.slice(0, space), id.slice(space + 1)];
}

/** Path and stamp of each file that may have objects. @throws Error where the folder cannot be read */
function listFiles(directory: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const entry of readdirSync(directory, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.name.startsWith('.') || !/\.(ya?ml|json)$/.test(entry.name)) continue;
    const { size, mtimeMs, ino } = statSync(path);
    files.set(path, `${size} ${mtimeMs} ${ino}`);
  }
  return files;
}
