/**
 * May this ztunnel have a certificate for that identity? Only where a pod of the identity runs on ztunnel's own node, so that a stolen node
 * gives away the identities of its own pods and no others. Keeps the few fields of all pods that this needs.
 * @see Istio: security/pkg/server/ca/node_auth.go
 */
import { parseSpiffeId } from '../../common/base/spiffe.ts';
import type { Caller } from './token-review.ts';

/** What is looked at in a pod. */
export interface PodFacts {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly serviceAccount: string;
  /** Empty until it is scheduled. */
  readonly node: string;
  readonly failed: boolean;
}

export type NodeVerdict = { readonly allowed: true } | { readonly allowed: false; readonly reason: string };

export class NodeAuthorizer {
  readonly #trusted: ReadonlySet<string>;
  readonly #pods = new Map<string, PodFacts>();
  /** How many living pods have an identity on a node. */
  readonly #identities = new Map<string, number>();

  /** @param trustedAccounts `namespace/serviceaccount` of those that may ask for others at all */
  constructor(trustedAccounts: readonly string[]) {
    this.#trusted = new Set(trustedAccounts);
  }

  podChanged(pod: PodFacts): void {
    this.podRemoved(pod);
    this.#pods.set(podKey(pod), pod);
    this.#count(pod, 1);
  }

  podRemoved({ namespace, name }: { namespace: string; name: string }): void {
    const before = this.#pods.get(podKey({ namespace, name }));
    if (!before) return;
    this.#pods.delete(podKey(before));
    this.#count(before, -1);
  }

  /** @param identity the SPIFFE URI that is asked for; its trust domain is not compared, as Istio does not */
  authorize(caller: Caller, identity: string): NodeVerdict {
    const account = `${caller.namespace}/${caller.serviceAccount}`;
    if (!this.#trusted.has(account)) return no(`${account} is not trusted to ask for others (CA_TRUSTED_NODE_ACCOUNTS)`);
    const wanted = parseSpiffeId(identity);
    if (!wanted) return no(`${JSON.stringify(identity)} is no SPIFFE identity`);
    const pod = this.#pods.get(podKey({ namespace: caller.namespace, name: caller.podName }));
    if (!pod) return no(`the calling pod ${caller.namespace}/${caller.podName || '(none in the token)'} is not known`);
    if (pod.uid !== caller.podUid) return no(`the calling pod ${caller.podName} has another uid than the token`);
    if (pod.serviceAccount !== caller.serviceAccount) return no(`the calling pod ${caller.podName} runs as ${pod.serviceAccount}`);
    if (pod.node === '') return no(`the calling pod ${caller.podName} is on no node`);
    if (!this.#identities.has(identityKey({ ...wanted, node: pod.node })))
      return no(`no pod of ${wanted.namespace}/${wanted.serviceAccount} runs on node ${pod.node}`);
    return { allowed: true };
  }

  #count(pod: PodFacts, by: number): void {
    if (pod.failed || pod.node === '') return;
    const key = identityKey(pod);
    const now = (this.#identities.get(key) ?? 0) + by;
    if (now > 0) this.#identities.set(key, now);
    else this.#identities.delete(key);
  }
}

const no = (reason: string): NodeVerdict => ({ allowed: false, reason });
const podKey = ({ namespace, name }: { namespace: string; name: string }): string => `${namespace}/${name}`;
const identityKey = ({ node, namespace, serviceAccount }: { node: string; namespace: string; serviceAccount: string }): string =>
  `${node}/${namespace}/${serviceAccount}`;
