/**
 * BackendTLSPolicy (gateway.networking.k8s.io/v1) → TLS that waypoints begin with a service's endpoints. Whoever refers to certificates that are
 * not there or not usable gets refusals, and not connections without them.
 */
import type { UpstreamTls } from '../../common/codec/gen/waypoint.ts';
import type { CertificateSource, CertificatesAt } from './certificate-sources.ts';
import type { Condition } from './conditions.ts';
import { at, quote, type Report, records, text } from './objects.ts';

export interface BackendTls {
  readonly hostname: string;
  readonly subjectAltNames: readonly string[];
  readonly systemRoots: boolean;
  /** ConfigMaps of the policy's namespace. */
  readonly roots: readonly CertificateSource[];
  /** Why the policy cannot be carried out as it is written. */
  readonly problem: { readonly reason: 'Invalid' | 'NoValidCACertificate'; readonly message: string } | undefined;
  /** Of `ResolvedRefs`. */
  readonly kindProblem: string | undefined;
}

export function readBackendTls(object: unknown, namespace: string, report: Report): BackendTls {
  const validation = at(object, 'spec', 'validation');
  const wellKnown = text(at(validation, 'wellKnownCACertificates'));
  const references = records(at(validation, 'caCertificateRefs'));
  const foreign = references.find(({ kind, group }) => text(kind) !== 'ConfigMap' || !['', 'core'].includes(text(group)));
  const kindProblem = foreign && `a CA certificate cannot be in a ${text(foreign.kind)}: a ConfigMap is needed`;
  const hostname = text(at(validation, 'hostname'));
  const problem = ((): BackendTls['problem'] => {
    if (hostname === '') return { reason: 'Invalid', message: 'spec.validation.hostname is missing' };
    if (wellKnown !== '' && wellKnown !== 'System')
      return { reason: 'Invalid', message: `spec.validation.wellKnownCACertificates: there are no ${quote(wellKnown)}` };
    if (kindProblem !== undefined) return { reason: 'NoValidCACertificate', message: kindProblem };
    if (wellKnown === '' && references.length === 0)
      return { reason: 'NoValidCACertificate', message: 'neither caCertificateRefs nor wellKnownCACertificates' };
    return undefined;
  })();
  if (problem) report(problem.message);
  return {
    hostname,
    subjectAltNames: records(at(validation, 'subjectAltNames')).flatMap(({ type, hostname: host, uri }) =>
      type === 'URI' ? text(uri) || [] : text(host) || [],
    ),
    systemRoots: wellKnown === 'System',
    roots: kindProblem === undefined ? references.map(({ name }): CertificateSource => `ConfigMap ${namespace}/${text(name)}`) : [],
    problem,
    kindProblem,
  };
}

/** What a waypoint is told; `refuse` says why it must send nothing. */
export function backendTls(
  tls: BackendTls,
  certificatesAt: CertificatesAt,
): { readonly tls: UpstreamTls | undefined; readonly refuse: string } {
  const problem = tls.problem?.message ?? rootsProblem(tls, certificatesAt);
  if (problem !== undefined) return { tls: undefined, refuse: problem };
  const { hostname, subjectAltNames, roots, systemRoots } = tls;
  return {
    tls: {
      serverName: hostname,
      subjectAltNames: [...subjectAltNames],
      roots: systemRoots ? '' : roots.flatMap((source) => certificatesAt(source)?.roots || []).join('\n'),
      unverified: false,
      credential: '',
    },
    refuse: '',
  };
}

/** With several references, those that can be used do; the first problem where none can. */
function rootsProblem({ roots, systemRoots }: BackendTls, certificatesAt: CertificatesAt): string | undefined {
  if (systemRoots || roots.some((source) => certificatesAt(source)?.roots)) return undefined;
  const [first] = roots;
  return (first && certificatesAt(first)?.problem) ?? `${first} has not been read yet`;
}

/** `ResolvedRefs`, and why the policy is not accepted. */
export function backendTlsConditions(
  tls: BackendTls,
  certificatesAt: CertificatesAt,
): { readonly resolved: Condition; readonly problem: BackendTls['problem'] } {
  const unusable = tls.systemRoots
    ? []
    : tls.roots.flatMap((source) => certificatesAt(source)?.problem ?? (certificatesAt(source) ? [] : `${source} has not been read yet`));
  const roots = rootsProblem(tls, certificatesAt);
  const problem: BackendTls['problem'] =
    tls.problem ?? (roots === undefined ? undefined : { reason: 'NoValidCACertificate', message: roots });
  if (tls.kindProblem !== undefined) return { resolved: condition('False', 'InvalidKind', tls.kindProblem), problem };
  if (unusable.length > 0) return { resolved: condition('False', 'InvalidCACertificateRef', unusable.join('; ')), problem };
  return { resolved: condition('True', 'ResolvedRefs', 'all references are resolved'), problem };
}

const condition = (status: 'True' | 'False', reason: string, message: string): Condition => ({
  type: 'ResolvedRefs',
  status,
  reason,
  message,
});
