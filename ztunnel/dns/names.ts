/**
 * What a name that a pod asks for may stand for (Istio's ztunnel, src/dns): itself, the Kubernetes forms that it abbreviates, and both again
 * for what is left when a search domain is taken off its end. Names are lower case here, without the final dot.
 */

export interface NameContext {
  readonly clientNamespace: string;
  /** `cluster.local` */
  readonly clusterDomain: string;
}

export interface Candidate {
  /** To be looked for among hostnames. */
  readonly hostname: string;
  /** What is left of the requested name without its search domain; undefined where nothing was taken off. */
  readonly stripped: string | undefined;
}

/** Full hostnames of which a Kubernetes name is short: `a`, `a.ns`, `a.ns.svc`, `pod.sub.ns.svc`. Empty for anything longer. */
export function kubernetesHostnames(name: string, { clientNamespace, clusterDomain }: NameContext): string[] {
  const labels = name.split('.');
  const suffix = `svc.${clusterDomain}`;
  const endsInSvc = labels.at(-1) === 'svc';
  switch (labels.length) {
    case 1:
      return [`${name}.${clientNamespace}.${suffix}`];
    case 2:
      return [`${name}.${suffix}`, `${name}.${clientNamespace}.${suffix}`];
    case 3:
      return endsInSvc ? [`${name}.${clusterDomain}`, `${name}.${suffix}`] : [`${name}.${suffix}`];
    case 4:
      return endsInSvc ? [`${name}.${clusterDomain}`] : [];
    default:
      return [];
  }
}

/** The search list that a pod's resolver has, as Kubernetes writes it. */
export const searchDomains = ({ clientNamespace, clusterDomain }: NameContext): string[] => [
  `${clientNamespace}.svc.${clusterDomain}`,
  `svc.${clusterDomain}`,
  clusterDomain,
];

/** In the order in which they are tried. */
export function candidates(name: string, context: NameContext): Candidate[] {
  const found: Candidate[] = [name, ...kubernetesHostnames(name, context)].map((hostname) => ({ hostname, stripped: undefined }));
  for (const domain of searchDomains(context)) {
    if (!name.endsWith(`.${domain}`)) continue;
    const stripped = name.slice(0, -(domain.length + 1));
    for (const hostname of [stripped, ...kubernetesHostnames(stripped, context)]) found.push({ hostname, stripped });
  }
  return found;
}

/** The name, and the wildcards that cover it from the most to the least specific: `a.b.c`, `*.b.c`, `*.c`. */
export function withWildcards(hostname: string): string[] {
  const labels = hostname.split('.');
  return [hostname, ...labels.slice(1).map((_, i) => `*.${labels.slice(i + 1).join('.')}`)];
}
