/**
 * Whether the hosts of WorkloadEntries answer: a connection to a port of each is tried every few seconds, and written to its status as the
 * condition `Healthy`, as Istio's agents do. In a cluster the kubelet does this for pods; here nobody else would.
 */
import type { Clock, Timer } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { KubeApi, KubeObject } from '../../common/client/kube-api.ts';
import { at, isRecord, portOf, text } from '../model/objects.ts';

export interface HealthChecksOptions {
  readonly api: Pick<KubeApi, 'patch'>;
  readonly clock: Clock;
  readonly log: Log;
  /** Between two tries. */
  readonly intervalMs: number;
  /** Whether something accepts a connection. */
  connects(host: string, port: number): Promise<boolean>;
}

interface Checked {
  readonly path: string;
  readonly object: KubeObject;
  readonly host: string;
  readonly port: number;
  failures: number;
  /** undefined until it has been told. */
  healthy: boolean | undefined;
}

/** So many in a row, or one packet lost takes a host out. */
const FAILURES = 3;
const AT_ONCE = 32;
const HBONE_PORT = 15008;
/** Which port to try; the tunnel's, or the first of the entry, where it is not given. */
export const HEALTH_PORT = 'warren.dev/health-port';

export class HealthChecks {
  readonly #options: HealthChecksOptions;
  readonly #entries = new Map<string, Checked>();
  #timer: Timer | undefined;
  #running = false;

  constructor(options: HealthChecksOptions) {
    this.#options = options;
    this.#arm();
  }

  entryChanged(object: KubeObject, deleted: boolean): void {
    const { namespace = '', name = '' } = object.metadata;
    const key = `${namespace}/${name}`;
    const before = this.#entries.get(key);
    const host = text(at(object, 'spec', 'address'));
    const port = portToTry(object);
    this.#entries.delete(key);
    if (deleted || host === '' || port === undefined) return;
    const path = `/apis/networking.istio.io/v1/namespaces/${namespace}/workloadentries/${name}/status`;
    const same = before?.host === host && before.port === port;
    this.#entries.set(key, { path, object, host, port, failures: same ? before.failures : 0, healthy: same ? before.healthy : undefined });
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #arm(): void {
    this.#timer = this.#options.clock.after(this.#options.intervalMs, () => {
      void this.#round();
      this.#arm();
    });
  }

  async #round(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    const waiting = [...this.#entries.keys()];
    const worker = async (): Promise<void> => {
      for (let key = waiting.pop(); key !== undefined; key = waiting.pop()) await this.#check(key);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    this.#running = false;
  }

  async #check(key: string): Promise<void> {
    const tried = this.#entries.get(key);
    if (!tried) return;
    const up = await this.#options.connects(tried.host, tried.port).catch(() => false);
    const entry = this.#entries.get(key);
    // Another address meanwhile: this says nothing about it.
    if (entry?.host !== tried.host || entry.port !== tried.port) return;
    entry.failures = up ? 0 : entry.failures + 1;
    const healthy = up ? true : entry.failures >= FAILURES ? false : entry.healthy;
    if (healthy === undefined || healthy === entry.healthy) return;
    entry.healthy = healthy;
    await this.#tell(entry, healthy);
  }

  async #tell({ path, object, host, port }: Checked, healthy: boolean): Promise<void> {
    const { api, clock, log } = this.#options;
    const { namespace, name } = object.metadata;
    const condition = {
      type: 'Healthy',
      status: healthy ? 'True' : 'False',
      reason: healthy ? 'Connected' : 'NoConnection',
      message: `${host} port ${port} ${healthy ? 'accepts connections' : 'does not accept connections'}`,
      lastTransitionTime: new Date(clock.now()).toISOString().replace(/\.\d+Z$/, 'Z'),
    };
    log[healthy ? 'info' : 'warn'](
      { object: `WorkloadEntry ${namespace}/${name}`, host, port },
      healthy ? 'host answers' : 'host does not answer',
    );
    await api
      .patch(
        path,
        { metadata: { name, namespace }, status: { conditions: [condition] } },
        { type: 'apply', fieldManager: 'warren-health', force: true },
      )
      .catch((error: unknown) => log.warn({ path, error: String(error) }, 'health could not be written'));
  }
}

function portToTry(object: KubeObject): number | undefined {
  const { annotations = {}, labels = {} } = object.metadata;
  if (annotations[HEALTH_PORT] !== undefined) return portOf(Number(annotations[HEALTH_PORT]));
  if (labels['networking.istio.io/tunnel'] === 'http') return HBONE_PORT;
  const ports = at(object, 'spec', 'ports');
  return isRecord(ports) ? portOf(Object.values(ports)[0]) : undefined;
}
