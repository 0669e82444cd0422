/**
 * A root of the mesh's own, in a Secret that all replicas follow: made once by whichever is first, renewed and rotated by the one that writes,
 * put back where somebody deletes it. Certificates go by the wall clock, so it is read again each minute.
 * @see Istio: pilot/pkg/bootstrap/istio_ca.go, security/pkg/pki/ca
 */
import { Backoff } from '../../common/base/backoff.ts';
import { type Clock, hours, minutes, seconds, sleep, type Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { type KubeApi, KubeApiError } from '../../common/client/kube-api.ts';
import { Authority } from './authority.ts';
import {
  afterStep,
  CA_SECRET,
  type CaSecret,
  materialOf,
  newSecret,
  type RootParameters,
  rotationOf,
  secretPath,
  withAnnotation,
} from './ca-secret.ts';
import type { CertificateAuthority } from './certificate-authority.ts';
import { LONGEST_CERTIFICATE, nextStep, plan, type RotationStep } from './rotation.ts';

export interface SelfSignedOptions {
  readonly api: Pick<KubeApi, 'get' | 'create' | 'replace'>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  /** Ends the waiting for the API server. */
  readonly signal: AbortSignal;
  /** Of the Secret. */
  readonly namespace: string;
  readonly trustDomain: string;
  readonly rootLifetimeMs: number;
  /** Between two steps of a rotation. */
  readonly rotationWaitMs: number;
  /** Whether this replica is the one that writes. */
  writes(): boolean;
  /** After `current` changed. */
  onChange(): void;
}

const LOOK_EVERY_MS = minutes(1);
// Finer than this nobody cares, and each is a write.
const LONGEST_GRAIN_MS = hours(1);

export class SelfSignedCa implements CertificateAuthority {
  readonly crlPem = '';
  readonly #options: SelfSignedOptions;
  #secret: CaSecret;
  #current: Authority;
  /** Until when the longest-lived certificate is valid that this replica signed. */
  #longest = 0;
  #acting = false;
  #timer: Timer | undefined;

  private constructor(options: SelfSignedOptions, secret: CaSecret) {
    this.#options = options;
    this.#secret = secret;
    this.#current = new Authority(materialOf(secret), options.clock);
    this.#arm();
  }

  /** Waits for the API server. @throws Error naming what is wrong with the Secret */
  static async open(options: SelfSignedOptions): Promise<SelfSignedCa> {
    const ca = new SelfSignedCa(options, await persistently(options, () => readOrCreate(options)));
    const expires = new Date(ca.current.rootNotAfter).toISOString();
    options.log.info({ source: ca.#source, expires }, 'certificate authority ready');
    return ca;
  }

  get current(): Authority {
    return this.#current;
  }

  /** What a watch says of the Secret. */
  secretChanged(secret: CaSecret | undefined): void {
    if (!secret) {
      void this.#putBack();
      return;
    }
    try {
      this.#take(secret);
      this.act();
    } catch (error) {
      this.#options.log.error(
        { source: this.#source, error: errorMessage(error) },
        'the root in the Secret cannot be used; the last good one stays',
      );
    }
  }

  /** Does what is due, where this replica is the one that writes. */
  act(): void {
    const { clock, writes, rotationWaitMs, log } = this.#options;
    if (this.#acting || !writes()) return;
    const { step, at } = nextStep(rotationOf(this.#secret), rotationWaitMs);
    if (clock.now() < at && !this.#longestIsNews()) return;
    this.#acting = true;
    this.#step(clock.now() < at ? undefined : step)
      .catch((error: unknown) => {
        // Somebody else was faster: the watch tells.
        if (error instanceof KubeApiError && error.status === 409) return;
        log.warn({ step, error: errorMessage(error) }, 'the root could not be changed, trying again in a minute');
      })
      .finally(() => {
        this.#acting = false;
      });
  }

  issued(notAfter: number): void {
    if (notAfter > this.#options.clock.now() + this.#options.rotationWaitMs) this.#longest = Math.max(this.#longest, notAfter);
  }

  describe(): unknown {
    const { clock, rotationWaitMs } = this.#options;
    const state = rotationOf(this.#secret);
    const next = nextStep(state, rotationWaitMs);
    const words = ({ step, at }: { step: RotationStep; at: number }) => ({ step, at: new Date(Math.max(at, clock.now())).toISOString() });
    return {
      source: this.#source,
      ...this.#current.describe(),
      rotation: {
        phase: state.phase,
        requested: state.requested ?? '',
        next: words(next),
        plan: plan(state, rotationWaitMs, clock.now()).map(words),
      },
    };
  }

  close(): void {
    this.#timer?.cancel();
  }

  get #source(): string {
    return `Secret ${this.#options.namespace}/${CA_SECRET}`;
  }

  get #parameters(): RootParameters {
    const { trustDomain, rootLifetimeMs: lifetimeMs, clock } = this.#options;
    return { trustDomain, lifetimeMs, now: clock.now() };
  }

  #arm(): void {
    this.#timer = this.#options.clock.after(LOOK_EVERY_MS, () => {
      this.act();
      this.#arm();
    });
  }

  #take(secret: CaSecret): void {
    const material = materialOf(secret);
    const { certificatePem, rootBundlePem } = this.#current.material;
    const same = material.certificatePem === certificatePem && material.rootBundlePem === rootBundlePem;
    // Before the Secret is taken over: one that cannot be used must not be built on either.
    const authority = same ? this.#current : new Authority(material, this.#options.clock);
    this.#secret = secret;
    if (same) return;
    this.#current = authority;
    const expires = new Date(authority.rootNotAfter).toISOString();
    this.#options.log.info({ expires, roots: authority.roots.length, phase: rotationOf(secret).phase }, 'the root changed');
    this.#options.onChange();
  }

  #longestIsNews(): boolean {
    return this.#longest > rotationOf(this.#secret).longestCertificate + LONGEST_GRAIN_MS;
  }

  async #step(step: RotationStep | undefined): Promise<void> {
    const { api, namespace, log } = this.#options;
    const noted = this.#longestIsNews()
      ? withAnnotation(this.#secret, LONGEST_CERTIFICATE, new Date(this.#longest).toISOString())
      : this.#secret;
    const wanted = step ? afterStep(noted, step, this.#parameters) : noted;
    await api.replace<CaSecret>(secretPath(namespace, CA_SECRET), wanted);
    // It is taken over when the watch tells, as in all replicas: its events come in order, and this answer may come between two of them.
    if (step) log.info({ step }, 'the root is being changed');
  }

  /** Certificates are out there that only this root vouches for: it must not be replaced by another because somebody deleted the Secret. */
  async #putBack(): Promise<void> {
    const { api, namespace, log, writes } = this.#options;
    if (!writes()) return;
    const { resourceVersion: _version, uid: _uid, creationTimestamp: _created, ...metadata } = this.#secret.metadata;
    try {
      await api.create<CaSecret>(secretPath(namespace), { ...this.#secret, metadata });
      log.warn({ source: this.#source }, 'the Secret of the root was deleted, and has been put back');
    } catch (error) {
      log.error({ source: this.#source, error: errorMessage(error) }, 'the Secret of the root was deleted and could not be put back');
    }
  }
}

// An API server that is not there yet is no reason to give up: everything else waits for it too.
async function persistently<T>({ clock, random, log, signal }: SelfSignedOptions, run: () => Promise<T>): Promise<T> {
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

async function readOrCreate({ api, namespace, trustDomain, rootLifetimeMs: lifetimeMs, clock }: SelfSignedOptions): Promise<CaSecret> {
  const read = () => api.get<CaSecret>(secretPath(namespace, CA_SECRET));
  try {
    return await read();
  } catch (error) {
    if (!isStatus(error, 404)) throw error;
  }
  try {
    return await api.create<CaSecret>(secretPath(namespace), newSecret(namespace, { trustDomain, lifetimeMs, now: clock.now() }));
  } catch (error) {
    // Another replica was faster; its root is everybody's.
    if (isStatus(error, 409)) return read();
    throw error;
  }
}

const isStatus = (error: unknown, status: number): boolean => error instanceof KubeApiError && error.status === status;
