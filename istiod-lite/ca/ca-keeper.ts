/**
 * Where the CA's key comes from, and that it stays valid. Files (Istio's `cacerts`, mounted) win; otherwise a self-signed root in the Secret
 * `istio-ca-secret`, made once by whichever replica is first, and signed again with the same key when a fifth of its life is left, so that
 * what it signed before stays good.
 * @see Istio: pilot/pkg/bootstrap/istio_ca.go, security/pkg/pki/ca
 */
import { createPrivateKey } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Backoff } from '../../common/base/backoff.ts';
import { type Clock, hours, minutes, seconds, sleep, type Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { selfSignedRoot } from '../../common/codec/x509/certificate.ts';
import { readCertificate } from '../../common/codec/x509/read-certificate.ts';
import { Authority, type CaMaterial } from './authority.ts';

export interface CaKeeperOptions {
  readonly api: Pick<KubeApi, 'get' | 'create' | 'replace'>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  /** Ends the waiting for the API server. */
  readonly signal: AbortSignal;
  /** Of the Secret. */
  readonly namespace: string;
  readonly trustDomain: string;
  /** Folder of a CA that the operator brings; used where it has a `ca-cert.pem`. */
  readonly directory: string;
  readonly rootLifetimeMs: number;
  /** After `current` changed. */
  onChange(): void;
}

const SECRET_NAME = 'istio-ca-secret';
const SECRET_TYPE = 'istio.io/ca-root';
const CHECK_EVERY_MS = hours(1);
const RENEW_BELOW = 0.2;
const BACKDATED_MS = minutes(2);

interface CaSecret extends KubeObject {
  data?: Record<string, string>;
}

export class CaKeeper {
  readonly #options: CaKeeperOptions;
  #current: Authority;
  #timer: Timer | undefined;

  private constructor(options: CaKeeperOptions, material: CaMaterial) {
    this.#options = options;
    this.#current = new Authority(material, options.clock);
  }

  /** Waits for the API server. @throws Error naming file or Secret and what is wrong with it */
  static async open(options: CaKeeperOptions): Promise<CaKeeper> {
    const { directory, log, clock } = options;
    const own = readDirectory(directory);
    const keeper = new CaKeeper(options, own ?? materialOf(await persistently(options, () => readOrCreate(options))));
    const expires = new Date(keeper.current.rootNotAfter).toISOString();
    log.info({ source: own ? directory : `Secret ${options.namespace}/${SECRET_NAME}`, expires }, 'certificate authority ready');
    if (!own) keeper.#timer = clock.after(CHECK_EVERY_MS, () => keeper.#check());
    return keeper;
  }

  get current(): Authority {
    return this.#current;
  }

  /** For people. */
  describe(): unknown {
    const { signerNotAfter, rootNotAfter } = this.#current;
    return { signerExpires: new Date(signerNotAfter).toISOString(), rootExpires: new Date(rootNotAfter).toISOString() };
  }

  close(): void {
    this.#timer?.cancel();
  }

  #check(): void {
    this.#refresh()
      .catch((error: unknown) =>
        this.#options.log.warn({ error: errorMessage(error) }, 'the root could not be checked, trying again in an hour'),
      )
      .finally(() => {
        this.#timer = this.#options.clock.after(CHECK_EVERY_MS, () => this.#check());
      });
  }

  async #refresh(): Promise<void> {
    let secret = await readOrCreate(this.#options);
    if (isOld(materialOf(secret), this.#options.clock.now())) secret = await this.#signAgain(secret);
    const material = materialOf(secret);
    if (material.certificatePem === this.#current.material.certificatePem) return;
    this.#current = new Authority(material, this.#options.clock);
    this.#options.log.info({ expires: new Date(this.#current.rootNotAfter).toISOString() }, 'the root was renewed');
    this.#options.onChange();
  }

  // The resourceVersion in the secret makes one replica win; the others read what it wrote an hour later.
  async #signAgain(secret: CaSecret): Promise<CaSecret> {
    const { api, clock, trustDomain, rootLifetimeMs, namespace } = this.#options;
    const now = clock.now();
    const key = createPrivateKey(materialOf(secret).keyPem);
    const root = selfSignedRoot({ trustDomain, key, notBefore: now - BACKDATED_MS, notAfter: now + rootLifetimeMs });
    return api.replace<CaSecret>(secretPath(namespace, SECRET_NAME), {
      ...secret,
      data: { ...secret.data, 'ca-cert.pem': base64(root.certificatePem) },
    });
  }
}

// An API server that is not there yet is no reason to give up: everything else waits for it too.
async function persistently<T>({ clock, random, log, signal }: CaKeeperOptions, run: () => Promise<T>): Promise<T> {
  const backoff = new Backoff({ firstMs: 200, maxMs: seconds(15), jitter: 0.3, random });
  for (;;) {
    try {
      return await run();
    } catch (error) {
      signal.throwIfAborted();
      log.warn({ error: errorMessage(error) }, 'the root could not be read or created, trying again');
      await sleep(clock, backoff.next(), signal);
    }
  }
}

const isOld = ({ certificatePem }: CaMaterial, now: number): boolean => {
  const { notBefore, notAfter } = readCertificate(certificatePem);
  return notAfter - now < (notAfter - notBefore) * RENEW_BELOW;
};

async function readOrCreate(options: CaKeeperOptions): Promise<CaSecret> {
  const { api, namespace } = options;
  const read = () => api.get<CaSecret>(secretPath(namespace, SECRET_NAME));
  try {
    return await read();
  } catch (error) {
    if (!isStatus(error, 404)) throw error;
  }
  try {
    return await api.create<CaSecret>(secretPath(namespace), newSecret(options));
  } catch (error) {
    // Another replica was faster; its root is everybody's.
    if (isStatus(error, 409)) return read();
    throw error;
  }
}

function newSecret({ namespace, trustDomain, clock, rootLifetimeMs }: CaKeeperOptions): CaSecret {
  const now = clock.now();
  const root = selfSignedRoot({ trustDomain, notBefore: now - BACKDATED_MS, notAfter: now + rootLifetimeMs });
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: SECRET_NAME, namespace },
    type: SECRET_TYPE,
    data: {
      'ca-cert.pem': base64(root.certificatePem),
      'ca-key.pem': base64(root.keyPem),
      'cert-chain.pem': '',
      'key.pem': '',
      'root-cert.pem': '',
    },
  };
}

function materialOf({ data = {} }: CaSecret): CaMaterial {
  const field = (name: string): string => Buffer.from(data[name] ?? '', 'base64').toString('utf8');
  const certificatePem = field('ca-cert.pem');
  const keyPem = field('ca-key.pem');
  if (!certificatePem || !keyPem) throw new Error(`Secret ${SECRET_NAME} has no ca-cert.pem or no ca-key.pem`);
  return { certificatePem, keyPem, chainPem: '', rootBundlePem: field('root-cert.pem') || certificatePem };
}

function readDirectory(directory: string): CaMaterial | undefined {
  if (!existsSync(join(directory, 'ca-cert.pem'))) return undefined;
  const file = (name: string): string => readFileSync(join(directory, name), 'utf8');
  try {
    return {
      certificatePem: file('ca-cert.pem'),
      keyPem: file('ca-key.pem'),
      chainPem: file('cert-chain.pem'),
      rootBundlePem: file('root-cert.pem'),
    };
  } catch (error) {
    throw new Error(`${directory} has a ca-cert.pem but is incomplete: ${errorMessage(error)}`, { cause: error });
  }
}

const secretPath = (namespace: string, name?: string): string => `/api/v1/namespaces/${namespace}/secrets${name ? `/${name}` : ''}`;
const base64 = (text: string): string => Buffer.from(text).toString('base64');
const isStatus = (error: unknown, status: number): boolean => error instanceof KubeApiError && error.status === status;
