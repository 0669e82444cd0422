/** Everything that certificates need, as one part of istiod: the CA, istiod's own certificate, and roots and revocation lists in every namespace. */

import type { KubeApi, KubeObject } from '../../common/client/kube-api.ts';
import { type WatchableApi, watchObjects } from '../../common/client/kube-watch.ts';
import type { Authority, Signed } from './authority.ts';
import { openCa } from './ca-keeper.ts';
import { CA_SECRET, type CaSecret, secretPath } from './ca-secret.ts';
import type { WorkloadRequest } from './certificate-service.ts';
import type { PluggedInOptions } from './plugged-in.ts';
import type { SelfSignedOptions } from './self-signed.ts';
import { ServingCertificate } from './serving-certificate.ts';
import { CRL_FILE, type DistributedFile, ROOT_FILE, TrustDistribution } from './trust-distribution.ts';

export interface TrustOptions extends Omit<SelfSignedOptions, 'onChange'>, Omit<PluggedInOptions, 'onChange'> {
  readonly api: Pick<KubeApi, 'get' | 'create' | 'replace'> & WatchableApi;
  /** Names in istiod's own certificate. */
  readonly dnsNames: readonly string[];
  readonly servingLifetimeMs: number;
}

export interface Trust {
  readonly authority: Authority;
  readonly certificate: ServingCertificate;
  sign(request: WorkloadRequest): Signed;
  namespaceChanged(namespace: string, exists: boolean): void;
  /** This replica may have become the writer. */
  resume(): void;
  /** For people. */
  describe(): unknown;
  close(): void;
}

/** Waits for the API server. @throws Error naming file or Secret and what is wrong with it */
export async function startTrust(options: TrustOptions): Promise<Trust> {
  const { api, clock, log, namespace } = options;
  const ca = await openCa({ ...options, onChange: () => changed() });
  const certificate = new ServingCertificate({
    authority: () => ca.current,
    dnsNames: options.dnsNames,
    lifetimeMs: options.servingLifetimeMs,
    clock,
    log,
  });
  const distributions = [
    distribution(options, ROOT_FILE, () => ca.current.material.rootBundlePem),
    distribution(options, CRL_FILE, () => ca.crlPem),
  ];
  const everywhere = (): void => {
    for (const each of distributions) each.everything();
  };
  const changed = (): void => {
    certificate.renew();
    everywhere();
  };
  watchObjects<CaSecret>(api, {
    ...options,
    path: secretPath(namespace),
    fieldSelector: `metadata.name=${CA_SECRET}`,
    onChange: ({ type, object }) => ca.secretChanged(type === 'deleted' ? undefined : object),
  });
  return {
    get authority() {
      return ca.current;
    },
    certificate,
    sign(request) {
      const signed = ca.current.sign(request);
      ca.issued(signed.notAfter);
      return signed;
    },
    namespaceChanged(name, exists) {
      for (const each of distributions) each.namespaceChanged(name, exists);
    },
    resume() {
      ca.act();
      everywhere();
    },
    describe: () => ({ ca: ca.describe(), distributed: distributions.map((each) => each.describe()) }),
    close() {
      certificate.close();
      ca.close();
    },
  };
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
