/** What the status of a Gateway depends on: its Service and its pods. */
import type { Gateway } from './gateway.ts';
import type { GatewayProblem } from './gateway-status.ts';
import { Groups } from './groups.ts';
import * as names from './names.ts';
import type { Pod } from './pod.ts';

export class GatewayInputs {
  /** Gateways, `namespace/name`, whose status must be made anew. */
  readonly stale = new Set<string>();
  readonly #ofService = new Groups<string>();
  readonly #readyPods = new Groups<string>();
  readonly #problems = new Map<string, GatewayProblem>();

  gatewayChanged(key: string, before: Gateway | undefined, next: Gateway | undefined): void {
    if (before) this.#ofService.remove(serviceOf(before), key);
    if (next) this.#ofService.add(serviceOf(next), key);
    this.stale.add(key);
  }

  serviceChanged(key: string): void {
    for (const gateway of this.#ofService.of(key)) this.stale.add(gateway);
  }

  podChanged(before: Pod | undefined, next: Pod | undefined): void {
    const [was, is] = [readyFor(before), readyFor(next)];
    if (was === is) return;
    if (before && was !== undefined) this.#readyPods.remove(was, before.key);
    if (next && is !== undefined) this.#readyPods.add(is, next.key);
    for (const gateway of [was, is]) if (gateway !== undefined) this.stale.add(gateway);
  }

  /** Whether it was not known yet. */
  setProblem(key: string, problem: GatewayProblem | undefined): boolean {
    const known = this.#problems.get(key);
    if (known?.reason === problem?.reason && known?.message === problem?.message) return false;
    if (problem) this.#problems.set(key, problem);
    else this.#problems.delete(key);
    this.stale.add(key);
    return true;
  }

  problem(key: string): GatewayProblem | undefined {
    return this.#problems.get(key);
  }

  hasReadyPod(key: string): boolean {
    return this.#readyPods.of(key).size > 0;
  }
}

const serviceOf = ({ namespace, serviceName }: Gateway): string => `${namespace}/${serviceName}`;

/** The Gateway that a pod serves, if it does. */
function readyFor(pod: Pod | undefined): string | undefined {
  const gateway = pod?.healthy ? pod.labels[names.GATEWAY_NAME] : undefined;
  return gateway === undefined ? undefined : `${pod?.namespace}/${gateway}`;
}
