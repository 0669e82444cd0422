/** Workload identities, as Istio writes them: `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`. */

export interface SpiffeId {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

const PREFIX = 'spiffe://';

/** @returns undefined unless the text has exactly the five pieces; empty pieces are allowed, as ztunnel allows them. */
export function parseSpiffeId(text: string): SpiffeId | undefined {
  if (!text.startsWith(PREFIX)) return undefined;
  const [trustDomain, ns, namespace, sa, serviceAccount, ...more] = text.slice(PREFIX.length).split('/');
  if (trustDomain === undefined || ns !== 'ns' || namespace === undefined || sa !== 'sa' || serviceAccount === undefined) return undefined;
  return more.length > 0 ? undefined : { trustDomain, namespace, serviceAccount };
}

export function formatSpiffeId({ trustDomain, namespace, serviceAccount }: SpiffeId): string {
  return `${PREFIX}${trustDomain}/ns/${namespace}/sa/${serviceAccount}`;
}
