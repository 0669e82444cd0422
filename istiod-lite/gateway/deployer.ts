/**
 * Makes the cluster hold what render.ts says, for every waypoint Gateway: server-side apply, when a Gateway changes, when what was made of it is
 * changed or deleted by somebody else, and when this replica becomes the writer. Deleting a Gateway deletes the rest through owner references.
 */
import { Backoff } from '../../common/base/backoff.ts';
import { type Clock, seconds, sleep } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { watchObjects } from '../../common/client/kube-watch.ts';
import type { ClusterApi } from '../kube/cluster-api.ts';
import type { GatewayProblem } from '../model/gateway-status.ts';
import * as names from '../model/names.ts';
import { at, text } from '../model/objects.ts';
import { GATEWAY_CLASSES, MESH_CONTROLLER, WAYPOINT_CLASS } from './classes.ts';
import { GatewayParameters } from './parameters.ts';
import { classOf, isDeployed, MANAGED, type RenderOptions, renderWaypoint } from './render.ts';
import { ROLLING_AT_ONCE, Rollouts } from './rollouts.ts';

export interface DeployerOptions extends RenderOptions {
  readonly api: ClusterApi;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly systemNamespace: string;
  /** Whether this replica is the one that writes. */
  writes(): boolean;
  /** Why a Gateway cannot be deployed as it is written, for its status; undefined where it can. Said by every replica. */
  setProblem(key: string, problem: GatewayProblem | undefined): void;
}

const RESOURCES: Readonly<Record<string, string>> = {
  ServiceAccount: '/api/v1/namespaces/%/serviceaccounts',
  Service: '/api/v1/namespaces/%/services',
  Deployment: '/apis/apps/v1/namespaces/%/deployments',
  HorizontalPodAutoscaler: '/apis/autoscaling/v2/namespaces/%/horizontalpodautoscalers',
  PodDisruptionBudget: '/apis/policy/v1/namespaces/%/poddisruptionbudgets',
};
/** What is there only if an overlay asks for it. */
const OPTIONAL = 'HorizontalPodAutoscaler';
const CLASSES_PATH = '/apis/gateway.networking.k8s.io/v1/gatewayclasses';
const LAST_BACKOFF_MS = seconds(30);

export class GatewayDeployer {
  readonly #options: DeployerOptions;
  readonly #gateways = new Map<string, KubeObject>();
  /** Gateways to look at; one work loop goes through them. */
  readonly #due = new Set<string>();
  readonly #backoff: Backoff;
  readonly #parameters: GatewayParameters;
  readonly #rollouts: Rollouts;
  #working = false;
  /** By name, whose they are. */
  readonly #controllers = new Map<string, string>();

  constructor(options: DeployerOptions) {
    const { api, signal, log, clock, random } = options;
    this.#options = options;
    this.#parameters = new GatewayParameters({ ...options, changed: (keys) => this.#lookAt(keys) });
    this.#rollouts = new Rollouts(ROLLING_AT_ONCE, (waiting) => this.#lookAt(waiting));
    this.#backoff = new Backoff({ firstMs: 500, maxMs: LAST_BACKOFF_MS, jitter: 0.2, random });
    for (const path of ['/apis/apps/v1/deployments', '/api/v1/services']) {
      watchObjects<KubeObject>(api, {
        path,
        labelSelector: `${names.GATEWAY_MANAGED}=${MANAGED}`,
        clock,
        random,
        log,
        signal,
        keep: ({ apiVersion = '', kind = '', metadata, spec, status }) => ({
          apiVersion,
          kind,
          metadata,
          ...(kind === 'Deployment' && { spec: { replicas: (spec as { replicas?: number } | undefined)?.replicas }, status }),
        }),
        onChange: ({ type, object, previous }) => {
          // A Deployment's status changes with every pod. Services have no generation: applying once more then changes nothing.
          const { generation } = object.metadata;
          const wish = type === 'deleted' || (previous && (generation === undefined || previous.metadata.generation !== generation));
          const gateway = object.metadata.labels?.[names.GATEWAY_NAME];
          if (gateway === undefined) return;
          const key = `${object.metadata.namespace}/${gateway}`;
          if (object.kind === 'Deployment') this.#rollouts.seen(key, type === 'deleted' ? undefined : object);
          if (wish) this.#lookAt([key]);
        },
      });
    }
  }

  gatewayChanged(gateway: KubeObject, deleted: boolean): void {
    const key = `${gateway.metadata.namespace}/${gateway.metadata.name}`;
    if (deleted) {
      this.#gateways.delete(key);
      this.#rollouts.forget(key);
    } else this.#gateways.set(key, gateway);
    this.#parameters.gatewayChanged(key, deleted ? undefined : gateway);
    this.#lookAt([key]);
  }

  classChanged(gatewayClass: KubeObject, deleted: boolean): void {
    const name = gatewayClass.metadata.name ?? '';
    const before = this.#isOurs(name);
    if (deleted) this.#controllers.delete(name);
    else this.#controllers.set(name, text(at(gatewayClass, 'spec', 'controllerName')));
    if (deleted) void this.#createClasses();
    if (!before && this.#isOurs(name))
      this.#lookAt([...this.#gateways].flatMap(([key, gateway]) => (classOf(gateway) === name ? [key] : [])));
  }

  /** Anybody may make another class for this controller, with defaults of its own. Ours we make ourselves, so it need not have been seen. */
  #isOurs(className: string): boolean {
    const controller = this.#controllers.get(className);
    return controller === undefined ? className === WAYPOINT_CLASS : controller === MESH_CONTROLLER;
  }

  /** This replica became the writer, or the cluster has been read: everything is looked at. */
  everything(): void {
    void this.#createClasses();
    for (const key of this.#gateways.keys()) this.#due.add(key);
    void this.#work();
  }

  #lookAt(keys: readonly string[]): void {
    for (const key of keys) {
      const gateway = this.#gateways.get(key);
      const parameters = gateway && this.#parameters.of(gateway);
      this.#options.setProblem(key, parameters && 'problem' in parameters ? parameters.problem : undefined);
      this.#due.add(key);
    }
    void this.#work();
  }

  /** Where the API server asks istiod about it, and refuses what it cannot ask about, the first try comes before istiod is reached. */
  async #createClasses(): Promise<void> {
    const { api, clock, log, random, signal, writes } = this.#options;
    const backoff = new Backoff({ firstMs: 500, maxMs: LAST_BACKOFF_MS, jitter: 0.2, random });
    const wanted = [...GATEWAY_CLASSES];
    for (let next = wanted.shift(); next && !signal.aborted; next = wanted.shift()) {
      const gatewayClass = next.metadata.name ?? '';
      if (!writes() || this.#controllers.has(gatewayClass)) continue;
      try {
        await api.create(CLASSES_PATH, next);
        log.info({ gatewayClass, controller: MESH_CONTROLLER }, 'gateway class created');
      } catch (error) {
        // Already there, or no Gateway API in this cluster: both are how it should be.
        if (error instanceof KubeApiError && (error.status === 409 || error.status === 404)) continue;
        log.warn({ gatewayClass, error: errorMessage(error) }, 'gateway class could not be created, trying again');
        wanted.push(next);
        await sleep(clock, backoff.next(), signal).catch(() => {
          // Shutting down: the loop's condition ends it.
        });
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
    const { revision, log, setProblem } = this.#options;
    const gateway = this.#gateways.get(key);
    if (!gateway || !isDeployed(gateway, revision, (name) => this.#isOurs(name))) return;
    // Where its ConfigMap has not been read yet, reading it brings the Gateway here again.
    const parameters = this.#parameters.of(gateway);
    if (!parameters || 'problem' in parameters) return;
    const objects = renderWaypoint(gateway, this.#options, parameters.overlays);
    const changed: string[] = [];
    if (!(await this.#mayRoll(objects, key))) {
      log.info({ gateway: key, atOnce: ROLLING_AT_ONCE }, 'waypoint waits for others that are being replaced');
      return;
    }
    for (const object of objects) {
      try {
        if (await this.#apply(object, key)) changed.push(object.kind ?? '');
      } catch (error) {
        // An overlay may give a field a value that the API server does not take.
        if (!(error instanceof KubeApiError && (error.status === 400 || error.status === 422)) || parameters.overlays.length === 0)
          throw error;
        setProblem(key, { reason: 'InvalidParameters', message: `the ${object.kind} was refused: ${error.message}` });
        return;
      }
    }
    if (!objects.some(({ kind }) => kind === OPTIONAL)) await this.#remove(OPTIONAL, objects[1]?.metadata ?? {});
    if (changed.length > 0) log.info({ gateway: key, changed }, 'waypoint deployed');
  }

  /** Whether its Deployment may be changed now: one that is new, or stays as it is, may be written at any time. */
  async #mayRoll(objects: readonly KubeObject[], gateway: string): Promise<boolean> {
    const deployment = objects.find(({ kind }) => kind === 'Deployment');
    const path = deployment && pathOf('Deployment', deployment.metadata);
    const present = path === undefined ? undefined : await this.#find(path);
    if (!deployment || path === undefined || present?.metadata.labels?.[names.GATEWAY_MANAGED] !== MANAGED) return true;
    const tried = await this.#options.api
      .patch<KubeObject>(path, deployment, { type: 'apply', fieldManager: MESH_CONTROLLER, force: true, dryRun: true })
      // What the API server does not take is told when it is applied.
      .catch(() => undefined);
    return tried === undefined || tried.metadata.generation === present.metadata.generation || this.#rollouts.mayChange(gateway);
  }

  /** Whether it changed something. Never takes over what somebody else made under the same name. */
  async #apply(object: KubeObject, gateway: string): Promise<boolean> {
    const { api } = this.#options;
    const { name = '', namespace = '' } = object.metadata;
    const path = pathOf(object.kind ?? '', object.metadata);
    const present = await this.#find(path);
    if (present && present.metadata.labels?.[names.GATEWAY_MANAGED] !== MANAGED) {
      throw new Error(`${object.kind} ${namespace}/${name} exists and is not ours; give Gateway ${gateway} another name`);
    }
    const applied = await api.patch<KubeObject>(path, object, { type: 'apply', fieldManager: MESH_CONTROLLER, force: true });
    if (object.kind === 'Deployment' && applied.metadata.generation !== present?.metadata.generation)
      this.#rollouts.changed(gateway, applied.metadata.generation ?? 0);
    return applied.metadata.resourceVersion !== present?.metadata.resourceVersion;
  }

  /** Takes away what we made and an overlay no longer asks for. */
  async #remove(kind: string, metadata: KubeObject['metadata']): Promise<void> {
    const path = pathOf(kind, metadata);
    const present = await this.#find(path);
    if (present?.metadata.labels?.[names.GATEWAY_MANAGED] === MANAGED) await this.#options.api.delete(path);
  }

  async #find(path: string): Promise<KubeObject | undefined> {
    try {
      return await this.#options.api.get<KubeObject>(path);
    } catch (error) {
      if (error instanceof KubeApiError && error.status === 404) return undefined;
      throw error;
    }
  }
}

const pathOf = (kind: string, { name = '', namespace = '' }: KubeObject['metadata']): string =>
  `${(RESOURCES[kind] ?? '').replace('%', namespace)}/${name}`;
