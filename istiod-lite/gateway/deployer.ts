/**
 * Makes the cluster hold what render.ts says, for every waypoint Gateway: server-side apply, when a Gateway changes, when what was made of it is
 * changed or deleted by somebody else, and when this replica becomes the writer. Deleting a Gateway deletes the rest through owner references.
 */
import { Backoff } from '../../common/base/backoff.ts';
import { type Clock, seconds, sleep } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { keepIdentity, watchObjects } from '../../common/client/kube-watch.ts';
import * as names from '../model/names.ts';
import { GATEWAY_CLASSES, MESH_CONTROLLER } from './classes.ts';
import { accountOf, isDeployed, MANAGED, problemOf, type RenderOptions, renderWaypoint } from './render.ts';

export interface DeployerOptions extends RenderOptions {
  readonly api: KubeApi;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Gateways with another label istio.io/rev are somebody else's. */
  readonly revision: string;
  /** Whether this replica is the one that writes. */
  writes(): boolean;
}

const RESOURCES: Readonly<Record<string, string>> = {
  ServiceAccount: '/api/v1/namespaces/%/serviceaccounts',
  Service: '/api/v1/namespaces/%/services',
  Deployment: '/apis/apps/v1/namespaces/%/deployments',
  PodDisruptionBudget: '/apis/policy/v1/namespaces/%/poddisruptionbudgets',
};
const CLASSES_PATH = '/apis/gateway.networking.k8s.io/v1/gatewayclasses';
const LAST_BACKOFF_MS = seconds(30);

export class GatewayDeployer {
  readonly #options: DeployerOptions;
  readonly #gateways = new Map<string, KubeObject>();
  /** Gateways to look at; one work loop goes through them. */
  readonly #due = new Set<string>();
  readonly #backoff: Backoff;
  #working = false;
  #classesSeen = new Set<string>();

  constructor(options: DeployerOptions) {
    const { api, signal, log, clock, random } = options;
    this.#options = options;
    this.#backoff = new Backoff({ firstMs: 500, maxMs: LAST_BACKOFF_MS, jitter: 0.2, random });
    for (const path of ['/apis/apps/v1/deployments', '/api/v1/services']) {
      watchObjects<KubeObject>(api, {
        path,
        labelSelector: `${names.GATEWAY_MANAGED}=${MANAGED}`,
        clock,
        random,
        log,
        signal,
        keep: keepIdentity,
        onChange: ({ type, object, previous }) => {
          // Our own writes raise no question: only what changed the wish, or took the object away.
          const spec = type === 'deleted' || (previous !== undefined && previous.metadata.generation !== object.metadata.generation);
          const gateway = object.metadata.labels?.[names.GATEWAY_NAME];
          if (spec && gateway !== undefined) this.#look(`${object.metadata.namespace}/${gateway}`);
        },
      });
    }
  }

  gatewayChanged(gateway: KubeObject, deleted: boolean): void {
    const key = `${gateway.metadata.namespace}/${gateway.metadata.name}`;
    if (deleted) this.#gateways.delete(key);
    else this.#gateways.set(key, gateway);
    this.#look(key);
  }

  classChanged(gatewayClass: KubeObject, deleted: boolean): void {
    const name = gatewayClass.metadata.name ?? '';
    if (deleted) this.#classesSeen.delete(name);
    else this.#classesSeen.add(name);
    if (deleted) void this.#createClasses();
  }

  /** Why this account is none of the Gateway's waypoints; undefined where it is one. The namespace has been compared with the token's. */
  notOf(key: string, serviceAccount: string): string | undefined {
    const gateway = this.#gateways.get(key);
    if (!gateway) return `there is no Gateway ${key}`;
    const account = accountOf(gateway);
    return account === serviceAccount ? undefined : `waypoints of Gateway ${key} run as ${account}, not as ${serviceAccount}`;
  }

  /** This replica became the writer, or the cluster has been read: everything is looked at. */
  everything(): void {
    void this.#createClasses();
    for (const key of this.#gateways.keys()) this.#due.add(key);
    void this.#work();
  }

  #look(key: string): void {
    this.#due.add(key);
    void this.#work();
  }

  async #createClasses(): Promise<void> {
    const { api, log, writes } = this.#options;
    for (const gatewayClass of GATEWAY_CLASSES) {
      if (!writes() || this.#classesSeen.has(gatewayClass.metadata.name ?? '')) continue;
      try {
        await api.create(CLASSES_PATH, gatewayClass);
        log.info({ gatewayClass: gatewayClass.metadata.name, controller: MESH_CONTROLLER }, 'gateway class created');
      } catch (error) {
        // Already there, or no Gateway API in this cluster: both are how it should be.
        if (error instanceof KubeApiError && (error.status === 409 || error.status === 404)) continue;
        log.warn({ gatewayClass: gatewayClass.metadata.name, error: errorMessage(error) }, 'gateway class could not be created');
      }
    }
  }

  async #work(): Promise<void> {
    const { clock, log, signal, writes } = this.#options;
    if (this.#working) return;
    this.#working = true;
    while (writes() && !signal.aborted && this.#due.size > 0) {
      const [key = ''] = this.#due;
      this.#due.delete(key);
      try {
        await this.#deploy(key);
        this.#backoff.reset();
      } catch (error) {
        log.warn({ gateway: key, error: errorMessage(error) }, 'waypoint could not be deployed, trying again');
        this.#due.add(key);
        await sleep(clock, this.#backoff.next(), signal).catch(() => {
          // Shutting down: the loop's condition ends it.
        });
      }
    }
    this.#working = false;
  }

  async #deploy(key: string): Promise<void> {
    const gateway = this.#gateways.get(key);
    if (!gateway || !isDeployed(gateway, this.#options.revision) || problemOf(gateway)) return;
    for (const object of renderWaypoint(gateway, this.#options)) await this.#apply(object, key);
    this.#options.log.info({ gateway: key }, 'waypoint deployed');
  }

  /** Never takes over what somebody else made under the same name. */
  async #apply(object: KubeObject, gateway: string): Promise<void> {
    const { api } = this.#options;
    const { name = '', namespace = '' } = object.metadata;
    const path = `${(RESOURCES[object.kind ?? ''] ?? '').replace('%', namespace)}/${name}`;
    const present = await api.get<KubeObject>(path).catch((error: unknown) => {
      if (error instanceof KubeApiError && error.status === 404) return undefined;
      throw error;
    });
    if (present && present.metadata.labels?.[names.GATEWAY_MANAGED] !== MANAGED) {
      throw new Error(`${object.kind} ${namespace}/${name} exists and is not ours; give Gateway ${gateway} another name`);
    }
    await api.patch(path, object, { type: 'apply', fieldManager: MESH_CONTROLLER, force: true });
  }
}
