/**
 * Waypoints are replaced a few at a time: a new version that does not come up stops at these few, and the others go on as they are. Which ones
 * are being replaced is seen in their Deployments, so a replica that becomes the writer goes on where the one before it was.
 */
import type { KubeObject } from '../../common/client/kube-api.ts';

export const ROLLING_AT_ONCE = 3;

interface DeploymentStatus {
  readonly observedGeneration?: number;
  readonly replicas?: number;
  readonly updatedReplicas?: number;
  readonly availableReplicas?: number;
  readonly conditions?: readonly { readonly type?: string; readonly reason?: string }[];
}

export class Rollouts {
  readonly #limit: number;
  readonly #freed: (waiting: readonly string[]) => void;
  /** Gateways (`namespace/name`) whose waypoints are being replaced. */
  readonly #rolling = new Set<string>();
  /** What we have changed and the watch has not shown yet, with the generation that it will show. */
  readonly #started = new Map<string, number>();
  readonly #waiting = new Set<string>();

  /** @param freed told of those that had to wait, when there is room again */
  constructor(limit: number, freed: (waiting: readonly string[]) => void) {
    this.#limit = limit;
    this.#freed = freed;
  }

  /** What the watch shows of a Gateway's Deployment; undefined where it is gone. */
  seen(gateway: string, deployment: KubeObject | undefined): void {
    const generation = deployment?.metadata.generation ?? 0;
    const awaited = this.#started.get(gateway);
    if (awaited !== undefined && deployment && generation < awaited) return;
    this.#started.delete(gateway);
    // Of a Deployment that has never been changed nothing older is there to be kept.
    if (deployment && generation > 1 && !isRolledOut(deployment)) this.#rolling.add(gateway);
    else this.#rolling.delete(gateway);
    this.#tell();
  }

  /** Whether a Deployment that is there may be changed now; where not, the Gateway is told of later. */
  mayChange(gateway: string): boolean {
    if (this.#rolling.has(gateway) || this.#started.has(gateway) || this.#underWay < this.#limit) {
      this.#waiting.delete(gateway);
      return true;
    }
    this.#waiting.add(gateway);
    return false;
  }

  /** It has been changed, and has this generation now. */
  changed(gateway: string, generation: number): void {
    if (generation > 1) this.#started.set(gateway, generation);
  }

  /** The Gateway is gone. */
  forget(gateway: string): void {
    this.#rolling.delete(gateway);
    this.#started.delete(gateway);
    this.#waiting.delete(gateway);
    this.#tell();
  }

  get #underWay(): number {
    return this.#rolling.size + [...this.#started.keys()].filter((gateway) => !this.#rolling.has(gateway)).length;
  }

  #tell(): void {
    if (this.#waiting.size === 0 || this.#underWay >= this.#limit) return;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    this.#freed(waiting);
  }
}

/**
 * As `kubectl rollout status` sees it: all pods of the new template, all of them available, none of the old ones left; or Kubernetes has said so
 * once, whatever became of the pods since.
 */
export function isRolledOut({ metadata, spec, status }: KubeObject): boolean {
  const { replicas: wanted = 1 } = (spec ?? {}) as { replicas?: number };
  const {
    observedGeneration = 0,
    replicas = 0,
    updatedReplicas = 0,
    availableReplicas = 0,
    conditions = [],
  } = (status ?? {}) as DeploymentStatus;
  if (observedGeneration < (metadata.generation ?? 0)) return false;
  if (conditions.some(({ type, reason }) => type === 'Progressing' && reason === 'NewReplicaSetAvailable')) return true;
  return updatedReplicas >= wanted && replicas <= updatedReplicas && availableReplicas >= updatedReplicas;
}
