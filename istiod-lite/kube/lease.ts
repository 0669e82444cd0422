/**
 * Which replica writes to the cluster: all of them serve, the holder of one Lease writes. A holder that cannot renew stops in time before
 * another may take over; expiry is judged by our own clock from the moment we saw the last renewal, since other machines' clocks differ.
 * @see Kubernetes: client-go tools/leaderelection; Istio: pilot/pkg/leaderelection (30 s, 15 s, 7.5 s)
 */
import { type Clock, seconds, sleep } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';

const LEASE_MS = seconds(30);
const RENEW_DEADLINE_MS = seconds(15);
const RETRY_MS = seconds(7.5);

export interface WriterLeaseOptions {
  readonly api: Pick<KubeApi, 'get' | 'create' | 'replace'>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly namespace: string;
  readonly name: string;
  /** Of this replica: its pod's name. */
  readonly identity: string;
  onAcquired(): void;
  onLost(): void;
}

interface LeaseObject extends KubeObject {
  spec?: {
    holderIdentity?: string;
    leaseDurationSeconds?: number;
    acquireTime?: string;
    renewTime?: string;
    leaseTransitions?: number;
  };
}

export class WriterLease {
  readonly #options: WriterLeaseOptions;
  readonly #path: string;
  #heldUntil = Number.NEGATIVE_INFINITY;
  #wasHeld = false;
  #released = false;
  #attempting: Promise<void> = Promise.resolve();
  /** The last renewal by somebody else that we saw, and when. */
  #seen = { record: '', at: 0 };

  constructor(options: WriterLeaseOptions) {
    this.#options = options;
    this.#path = `/apis/coordination.k8s.io/v1/namespaces/${options.namespace}/leases`;
  }

  get held(): boolean {
    return this.#options.clock.monotonic() < this.#heldUntil;
  }

  /** Until the signal or a release ends it. Once: whoever calls it can write, so a replica calls it when it knows the cluster. */
  async run(): Promise<void> {
    const { clock, random, log, signal } = this.#options;
    while (!signal.aborted && !this.#released) {
      this.#attempting = this.#attempt().catch((error: unknown) => {
        const lost = error instanceof KubeApiError && error.status === 409;
        if (!lost) log.warn({ error: errorMessage(error) }, 'the writer lease could not be read or written, trying again');
      });
      await this.#attempting;
      this.#report();
      await sleep(clock, RETRY_MS * (0.9 + 0.2 * random()), signal).catch(() => {
        // Shutting down: the loop's condition ends it.
      });
    }
  }

  /** Lets another replica take over at once, and takes it no more. Never throws. */
  async release(): Promise<void> {
    this.#released = true;
    // One under way may still win, and would then hold the lease for a process that is gone.
    await this.#attempting;
    if (!this.held) return;
    this.#heldUntil = Number.NEGATIVE_INFINITY;
    this.#report();
    try {
      const lease = await this.#read();
      if (lease?.spec?.holderIdentity !== this.#options.identity) return;
      await this.#write(lease, { ...lease.spec, holderIdentity: '', leaseDurationSeconds: 1 });
    } catch (error) {
      this.#options.log.debug({ error: errorMessage(error) }, 'the writer lease was not released; it expires by itself');
    }
  }

  async #attempt(): Promise<void> {
    const { clock, identity } = this.#options;
    const started = clock.monotonic();
    const lease = await this.#read();
    if (lease && !this.#free(lease)) return;
    const now = microTime(clock.now());
    const mine = lease?.spec?.holderIdentity === identity;
    await this.#write(lease, {
      holderIdentity: identity,
      leaseDurationSeconds: LEASE_MS / 1000,
      acquireTime: (mine && lease.spec?.acquireTime) || now,
      renewTime: now,
      leaseTransitions: (lease?.spec?.leaseTransitions ?? 0) + (mine || !lease ? 0 : 1),
    });
    this.#heldUntil = started + RENEW_DEADLINE_MS;
  }

  #free({ spec = {} }: LeaseObject): boolean {
    const { clock, identity } = this.#options;
    if (!spec.holderIdentity || spec.holderIdentity === identity) return true;
    const record = `${spec.holderIdentity} ${spec.renewTime}`;
    if (this.#seen.record !== record) this.#seen = { record, at: clock.monotonic() };
    return clock.monotonic() - this.#seen.at > (spec.leaseDurationSeconds ?? LEASE_MS / 1000) * 1000;
  }

  async #read(): Promise<LeaseObject | undefined> {
    try {
      return await this.#options.api.get<LeaseObject>(`${this.#path}/${this.#options.name}`);
    } catch (error) {
      if (error instanceof KubeApiError && error.status === 404) return undefined;
      throw error;
    }
  }

  // With the resourceVersion that was read, so that of two replicas one gets a conflict.
  async #write(lease: LeaseObject | undefined, spec: LeaseObject['spec']): Promise<void> {
    const { api, name, namespace } = this.#options;
    if (lease) await api.replace(`${this.#path}/${name}`, { ...lease, spec });
    else await api.create(this.#path, { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name, namespace }, spec });
  }

  #report(): void {
    if (this.held === this.#wasHeld) return;
    this.#wasHeld = this.held;
    this.#options.log.info(
      { identity: this.#options.identity },
      this.held ? 'this replica writes to the cluster' : 'another replica writes to the cluster',
    );
    if (this.held) this.#options.onAcquired();
    else this.#options.onLost();
  }
}

// Kubernetes' MicroTime.
const microTime = (ms: number): string => new Date(ms).toISOString().replace('Z', '000Z');
