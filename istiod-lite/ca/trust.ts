/** Everything that certificates need, as one part of istiod: the CA, istiod's own certificate, and roots and revocation lists in every namespace. */

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { KubeApi, KubeObject } from '../../common/client/kube-api.ts';
import { type WatchableApi, watchObjects } from '../../common/client/kube-watch.ts';
import type { Authority, Signed } from './authority.ts';
import { openCa } from './ca-keeper.ts';
import { CA_SECRET, type CaSecret, secretPath } from './ca-secret.ts';
import type { CertificateAuthority } from './certificate-authority.ts';
import type { WorkloadRequest } from './certificate-service.ts';
import { KubernetesSigner, type KubernetesSignerOptions } from './kubernetes-signer.ts';
import type { PluggedInOptions } from './plugged-in.ts';
import type { SelfSignedOptions } from './self-signed.ts';
import { hasServedFiles, ServedFiles } from './served-files.ts';
import { type ServerCertificate, ServingCertificate } from './serving-certificate.ts';
import { CRL_FILE, type DistributedFile, ROOT_FILE, TrustDistribution } from './trust-distribution.ts';

export interface TrustOptions extends Omit<SelfSignedOptions, 'onChange'>, Omit<PluggedInOptions, 'onChange'> {
  readonly api: Pick<KubeApi, 'get' | 'create' | 'replace' | 'delete'> & WatchableApi;
  /** Who signs: this istiod, a signer of the cluster under this name, or a server of its own that proxies ask (CA_ADDRESS). */
  readonly signer: 'istiod' | 'elsewhere' | { readonly kubernetes: string };
  /** Names in istiod's own certificate. */
  readonly dnsNames: readonly string[];
  readonly servingLifetimeMs: number;
  /** Folder of a certificate for istiod that somebody else issued, and of roots that go with it. */
  readonly servingDirectory: string;
  readonly servingRootsFile: string;
  /** Told the roots at the start and whenever they are others; for those who hand them out by other means than ConfigMaps. */
  rootsChanged?(rootsPem: string): void;
}

export interface Trust {
  /** Until when root and signing certificate are valid; undefined where somebody else signs. */
  readonly expiry: { readonly rootNotAfter: number; readonly signerNotAfter: number } | undefined;
  readonly certificate: ServerCertificate;
  /** Undefined where proxies ask somebody else. */
  readonly sign: ((request: WorkloadRequest) => Signed | Promise<Signed>) | undefined;
  namespaceChanged(namespace: string, exists: boolean): void;
  /** This replica may have become the writer. */
  resume(): void;
  /** For people. */
  describe(): unknown;
  close(): void;
}

/** Waits for the API server. @throws Error naming file or Secret and what is wrong with it */
export async function startTrust(options: TrustOptions): Promise<Trust> {
  const { api, namespace, signer } = options;
  const ca = signer === 'istiod' ? await openCa({ ...options, onChange: () => changed() }) : undefined;
  const brought = typeof signer === 'object' ? rootsIn(options.directory) : '';
  const certificate = servingCertificate(options, ca && (() => ca.current));
  const distributions = [
    distribution(options, ROOT_FILE, () => ca?.current.material.rootBundlePem ?? brought),
    distribution(options, CRL_FILE, () => ca?.crlPem ?? ''),
  ];
  const everywhere = (): void => {
    for (const each of distributions) each.everything();
  };
  const tellRoots = (): void => options.rootsChanged?.(ca?.current.material.rootBundlePem ?? brought);
  const changed = (): void => {
    certificate.renew();
    everywhere();
    tellRoots();
  };
  tellRoots();
  if (ca) {
    watchObjects<CaSecret>(api, {
      ...options,
      path: secretPath(namespace),
      fieldSelector: `metadata.name=${CA_SECRET}`,
      onChange: ({ type, object }) => ca.secretChanged(type === 'deleted' ? undefined : object),
    });
  }
  return {
    get expiry() {
      return ca?.current;
    },
    certificate,
    sign: ca
      ? signWith(ca)
      : typeof signer === 'object'
        ? signBy({ ...options, signerName: signer.kubernetes, roots: () => brought })
        : undefined,
    namespaceChanged(name, exists) {
      for (const each of distributions) each.namespaceChanged(name, exists);
    },
    resume() {
      ca?.act();
      everywhere();
    },
    describe: () => ({
      ca: ca?.describe() ?? { source: sourceOf(signer), roots: [] },
      distributed: distributions.map((each) => each.describe()),
    }),
    close() {
      certificate.close();
      ca?.close();
    },
  };
}

/** For people. */
const sourceOf = (signer: TrustOptions['signer']): string =>
  typeof signer === 'object' ? `signer ${signer.kubernetes} of the cluster` : signer;

const signWith =
  (ca: CertificateAuthority) =>
  (request: WorkloadRequest): Signed => {
    const signed = ca.current.sign(request);
    ca.issued(signed.notAfter);
    return signed;
  };

function signBy(options: KubernetesSignerOptions): (request: WorkloadRequest) => Promise<Signed> {
  const signer = new KubernetesSigner(options);
  return (request) => signer.sign(request);
}

/** Files win: who brings them wants them shown. */
function servingCertificate(options: TrustOptions, authority: (() => Authority) | undefined): ServerCertificate {
  const { dnsNames, servingLifetimeMs: lifetimeMs, servingDirectory: directory, servingRootsFile: rootsFile, clock, log } = options;
  if (hasServedFiles(directory)) return new ServedFiles({ directory, rootsFile, clock, log });
  if (authority) return new ServingCertificate({ authority, dnsNames, lifetimeMs, clock, log });
  throw new Error(`where somebody else signs, istiod needs a certificate of its own: Secret istiod-tls, mounted at ${directory}`);
}

function rootsIn(directory: string): string {
  const file = join(directory, ROOT_FILE.key);
  if (!existsSync(file)) throw new Error(`the roots of the cluster's signer are missing: bring them as ${file}`);
  return readFileSync(file, 'utf8');
}

function distribution(options: TrustOptions, file: DistributedFile, content: () => string): TrustDistribution {
  let synced = false;
  const distributed = new TrustDistribution({ ...options, file, content, writes: () => synced && options.writes() });
  watchObjects<KubeObject>(options.api, {
    ...options,
    path: '/api/v1/configmaps',
    fieldSelector: `metadata.name=${file.configMap}`,
    onChange: ({ type, object }) => distributed.configMapChanged(object.metadata.namespace ?? '', type === 'deleted' ? undefined : object),
    onSynced() {
      synced = true;
      distributed.everything();
    },
  });
  return distributed;
}
