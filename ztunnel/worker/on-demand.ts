/**
 * On-demand discovery (XDS_ON_DEMAND): this node does not hold the whole mesh, so a decision may miss what nobody has asked for yet. What it
 * looked for and did not find is asked of the control plane, and the decision is made again; not to be known is an answer as well.
 */
import { type Clock, sleep } from '../../common/base/clock.ts';
import { ProxyError } from '../../common/base/errors.ts';
import { type MeshView, serviceKey } from '../../common/decision/mesh-view.ts';

export interface OnDemandOptions {
  readonly view: MeshView;
  readonly clock: Clock;
  /** Asks for what has this name; `answered` is called with it sooner or later. */
  want(name: string): void;
}

const WAIT_MS = 5000;
/** A service, its waypoint, that one's gateway: what leads further is a loop. */
const MAX_ROUNDS = 8;
/** Names that are remembered as answered; what is forgotten is asked for once more. */
const MAX_KNOWN = 100_000;

export class OnDemand {
  readonly #options: OnDemandOptions;
  readonly #known = new Set<string>();
  readonly #waiting = new Map<string, PromiseWithResolvers<void>>();

  constructor(options: OnDemandOptions) {
    this.#options = options;
  }

  /**
   * @param decide looks at the view that it is given, and is called again until nothing is missing that has not been asked for
   * @throws {ProxyError} WORKLOAD_UNKNOWN where the control plane does not answer; the signal's reason
   */
  async decided<T>(decide: (view: MeshView) => T, signal: AbortSignal): Promise<T> {
    for (let round = 1; ; round++) {
      const missing = new Set<string>();
      const decision = decide(noting(this.#options.view, (name) => void (this.#known.has(name) || missing.add(name))));
      if (missing.size === 0 || round === MAX_ROUNDS) return decision;
      await this.#ensure(missing, signal);
    }
  }

  /** Resolves when the control plane has said something about each of these. */
  async #ensure(names: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
    const asked = [...names];
    const over = new AbortController();
    const late = sleep(this.#options.clock, WAIT_MS, AbortSignal.any([signal, over.signal])).then(() => {
      throw new ProxyError(
        'WORKLOAD_UNKNOWN',
        `the control plane has not said within ${WAIT_MS / 1000} s what it knows about ${asked.join(', ')}`,
      );
    });
    late.catch(() => undefined);
    try {
      await Promise.race([Promise.all(asked.map((name) => this.#ask(name))), late]);
    } finally {
      over.abort();
    }
  }

  /** The state that this worker sees by now has what there is of these. */
  answered(names: readonly string[]): void {
    for (const name of names) {
      const [oldest] = this.#known;
      if (this.#known.size >= MAX_KNOWN && oldest !== undefined) this.#known.delete(oldest);
      this.#known.add(name);
      this.#waiting.get(name)?.resolve();
      this.#waiting.delete(name);
    }
  }

  #ask(name: string): Promise<void> {
    const waiting = this.#waiting.get(name) ?? Promise.withResolvers<void>();
    if (!this.#waiting.has(name)) {
      this.#waiting.set(name, waiting);
      this.#options.want(name);
    }
    return waiting.promise;
  }
}

/** The same view, which tells of each look-up by address or hostname that found nothing, under the name that xDS has for it. */
function noting(view: MeshView, missing: (name: string) => void): MeshView {
  const note = <T>(found: T, name: string): T => {
    if (found === undefined || (Array.isArray(found) && found.length === 0)) missing(name);
    return found;
  };
  return {
    workloadByUid: (uid) => view.workloadByUid(uid),
    workloadByPod: (pod) => view.workloadByPod(pod),
    workloadByAddress: (network, ip) => note(view.workloadByAddress(network, ip), `${network}/${ip}`),
    workloadByHostname: (namespace, hostname) => note(view.workloadByHostname(namespace, hostname), serviceKey({ namespace, hostname })),
    serviceByKey: (namespace, hostname) => note(view.serviceByKey(namespace, hostname), serviceKey({ namespace, hostname })),
    servicesByAddress: (network, ip) => note(view.servicesByAddress(network, ip), `${network}/${ip}`),
    servicesByHostname: (hostname) => view.servicesByHostname(hostname),
    endpoints: (service) => view.endpoints(service),
    ...(view.endpointTable ? { endpointTable: view.endpointTable.bind(view) } : {}),
    policyByKey: (key) => view.policyByKey(key),
    globalPolicies: () => view.globalPolicies(),
    namespacePolicies: (namespace) => view.namespacePolicies(namespace),
  };
}
