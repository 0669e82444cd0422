/**
 * Certificates from a signer of the cluster: each request becomes a CertificateSigningRequest that istiod approves, since it has checked who
 * asks for whom. Roots are the operator's to bring: the API tells of none.
 * @see Kubernetes: certificates.k8s.io/v1; Istio: security/pkg/k8s/chiron/utils.go, pilot/pkg/bootstrap (ISTIOD_RA_KUBERNETES_API)
 */
import { X509Certificate } from 'node:crypto';
import { type Clock, seconds, sleep } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { KubeApi, KubeObject } from '../../common/client/kube-api.ts';
import { parseCsr } from '../../common/codec/x509/csr.ts';
import { splitCertificates } from '../../common/codec/x509/pem.ts';
import { readCertificate } from '../../common/codec/x509/read-certificate.ts';
import type { Signed } from './authority.ts';
import type { WorkloadRequest } from './certificate-service.ts';

export interface KubernetesSignerOptions {
  readonly api: Pick<KubeApi, 'get' | 'create' | 'replace' | 'delete'>;
  readonly clock: Clock;
  readonly log: Log;
  /** `example.com/signer`. */
  readonly signerName: string;
  /** PEM. */
  roots(): string;
}

const PATH = '/apis/certificates.k8s.io/v1/certificatesigningrequests';
const POLL_MS = 100;
const PATIENCE_MS = seconds(20);
// The shortest that Kubernetes takes.
const SHORTEST_S = 600;
const AT_ONCE = 50;

interface SigningRequestObject extends KubeObject {
  status?: { certificate?: string; conditions?: { type: string; reason?: string; message?: string }[] };
}

export class KubernetesSigner {
  readonly #options: KubernetesSignerOptions;
  #under = 0;

  constructor(options: KubernetesSignerOptions) {
    this.#options = options;
  }

  /** @throws Error where the request asks for other names than it may, the signer refuses, or takes too long */
  async sign({ csr, uris = [], lifetimeMs }: WorkloadRequest): Promise<Signed> {
    // A signer of the cluster signs what the request says, so here its names count.
    const asked = parseCsr(csr).uris;
    if (asked.length !== uris.length || asked.some((uri) => !uris.includes(uri)))
      throw new Error(`the CSR names ${asked.join(', ') || 'nobody'}, and may name ${uris.join(', ')}`);
    if (this.#under >= AT_ONCE) throw new Error(`${AT_ONCE} requests are being signed already`);
    this.#under++;
    try {
      return await this.#request(csr, uris, lifetimeMs);
    } finally {
      this.#under--;
    }
  }

  async #request(csr: string, uris: readonly string[], lifetimeMs: number): Promise<Signed> {
    const { api, signerName, log } = this.#options;
    const created = await api.create<SigningRequestObject>(PATH, {
      apiVersion: 'certificates.k8s.io/v1',
      kind: 'CertificateSigningRequest',
      metadata: { generateName: 'csr-workload-', labels: { 'istio.io/config': 'true' } },
      spec: {
        request: Buffer.from(csr).toString('base64'),
        signerName,
        expirationSeconds: Math.max(SHORTEST_S, Math.floor(lifetimeMs / 1000)),
        usages: ['digital signature', 'key encipherment', 'client auth', 'server auth'],
      },
    });
    const path = `${PATH}/${created.metadata.name}`;
    try {
      await this.#approve(path, created);
      return this.#checked(await this.#certificate(path), uris);
    } finally {
      // Kubernetes forgets it after an hour anyway.
      await api.delete(path).catch((error: unknown) => log.debug({ path, error: String(error) }, 'CSR not deleted'));
    }
  }

  async #approve(path: string, object: SigningRequestObject): Promise<void> {
    const condition = { type: 'Approved', status: 'True', reason: 'AuthorizedByIstiod', message: 'the caller may have this identity' };
    await this.#options.api.replace(`${path}/approval`, { ...object, status: { ...object.status, conditions: [condition] } });
  }

  async #certificate(path: string): Promise<string> {
    const { api, clock, signerName } = this.#options;
    const deadline = clock.monotonic() + PATIENCE_MS;
    for (;;) {
      const { status = {} } = await api.get<SigningRequestObject>(path);
      if (status.certificate) return Buffer.from(status.certificate, 'base64').toString('utf8');
      const refused = status.conditions?.find(({ type }) => type === 'Denied' || type === 'Failed');
      if (refused) throw new Error(`signer ${signerName}: ${refused.type} ${refused.reason ?? ''} ${refused.message ?? ''}`.trim());
      if (clock.monotonic() > deadline) throw new Error(`signer ${signerName} has not signed within ${PATIENCE_MS / 1000} s`);
      await sleep(clock, POLL_MS);
    }
  }

  #checked(pem: string, uris: readonly string[]): Signed {
    const certificates = splitCertificates(pem);
    const [leaf, ...between] = certificates;
    if (leaf === undefined) throw new Error('the signer sent no certificate');
    const facts = readCertificate(leaf);
    if (facts.uris.length !== uris.length || facts.uris.some((uri) => !uris.includes(uri)))
      throw new Error(`the signer made a certificate for ${facts.uris.join(', ') || 'nobody'}`);
    const roots = this.#options.roots();
    const last = new X509Certificate(certificates.at(-1) ?? leaf);
    if (!splitCertificates(roots).some((root) => last.verify(new X509Certificate(root).publicKey)))
      throw new Error('what the signer made does not lead to any of the roots that the mesh trusts');
    return { leaf, chain: [leaf, ...between, roots], notAfter: facts.notAfter };
  }
}
