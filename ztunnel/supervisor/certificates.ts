/**
 * Which identities this ztunnel keeps certificates for: those that connections ask for, and ahead of them those of the workloads on its own
 * node (Istio's ztunnel, src/identity, prefetch and forget).
 */
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import { fakeCaSource } from '../../common/certificates/fake-ca.ts';
import { CertificateKeeper, type CertificateListener, type CertificateSource } from '../../common/certificates/keeper.ts';
import { caSource, fileSource } from '../../common/certificates/sources.ts';
import { CaClient } from '../../common/client/ca-client.ts';
import type { TokenSource } from '../../common/client/grpc-endpoint.ts';
import type { Workload } from '../../common/decision/mesh-view.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import type { StateChange } from '../../common/state/writer.ts';
import { metrics } from '../metrics.ts';
import type { ZtunnelSettings } from '../settings.ts';
import type { KeptCertificates } from './kept-certificates.ts';

export interface CertificatesOptions {
  readonly settings: ZtunnelSettings;
  readonly token: TokenSource;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly listener: CertificateListener;
  /** Where certificates outlive this process. */
  readonly kept: KeptCertificates | undefined;
}

export function certificateKeeper({ settings, token, clock, random, log, listener, kept }: CertificatesOptions): CertificateKeeper {
  return new CertificateKeeper({
    source: sourceOf(settings, token, clock, log),
    clock,
    random,
    log,
    listener: {
      arrived(certificate) {
        kept?.save(certificate);
        listener.arrived(certificate);
      },
      failed(identity, reason) {
        kept?.remove(identity);
        listener.failed(identity, reason);
      },
    },
    ...(kept ? { kept: (identity: string) => kept.get(identity) } : {}),
  });
}

/** Brings the gauges about certificates up to date. */
export function measureCertificates(keeper: Pick<CertificateKeeper, 'states'>, series: SeriesWriter): void {
  const states = keeper.states();
  for (const at of ['available', 'initializing', 'unavailable'] as const) {
    series.set(series.slot(metrics.certificates, [at]), states.filter((state) => state.at === at).length);
  }
  const expiries = states.flatMap((state) => (state.at === 'available' ? [state.certificate.notAfter] : []));
  series.set(series.slot(metrics.certificateExpiry, []), expiries.length > 0 ? Math.min(...expiries) / 1000 : 0);
}

function sourceOf(settings: ZtunnelSettings, token: TokenSource, clock: Clock, log: Log): CertificateSource {
  const { certDir, ca, clusterId, secretTtlMs, mode, fakeCa } = settings;
  if (fakeCa) {
    log.warn('FAKE_CA: identities prove nothing, since everybody knows the key that signs them');
    return fakeCaSource(clock, secretTtlMs);
  }
  if (certDir !== undefined) return fileSource(certDir);
  if (ca) {
    return caSource({
      ca: new CaClient({ endpoint: ca, token, clusterId }),
      validitySeconds: Math.round(secretTtlMs / 1000),
      impersonate: mode === 'shared',
    });
  }
  return { fetch: () => Promise.reject(new Error('neither CA_ADDRESS nor CERT_DIR is set')) };
}

/** A node's proxy that gets its certificates from a CA fetches ahead: files are there anyway, and a dedicated proxy has one identity. */
export const prefetches = ({ mode, certDir }: Pick<ZtunnelSettings, 'mode' | 'certDir'>): boolean =>
  mode === 'shared' && certDir === undefined;

/** Counts the workloads of each identity on our node; the first one fetches, the last one's end forgets. */
export class Prefetch {
  readonly #keeper: Pick<CertificateKeeper, 'want' | 'forget'>;
  readonly #uses = new Map<string, number>();

  constructor(keeper: Pick<CertificateKeeper, 'want' | 'forget'>) {
    this.#keeper = keeper;
  }

  changed({ local }: Pick<StateChange, 'local'>): void {
    // Uses are added before others are taken away: a pod that is replaced must not lose its identity for a moment.
    for (const { after } of local) if (after && speaksHbone(after)) this.#use(formatSpiffeId(after));
    for (const { before } of local) if (before && speaksHbone(before)) this.#release(formatSpiffeId(before));
  }

  #use(identity: string): void {
    const uses = this.#uses.get(identity) ?? 0;
    this.#uses.set(identity, uses + 1);
    if (uses === 0) this.#keeper.want(identity, 'warmup');
  }

  #release(identity: string): void {
    const uses = (this.#uses.get(identity) ?? 0) - 1;
    if (uses > 0) {
      this.#uses.set(identity, uses);
      return;
    }
    this.#uses.delete(identity);
    this.#keeper.forget(identity);
  }
}

const speaksHbone = (workload: Workload): boolean => workload.protocol === 'HBONE' || workload.nativeTunnel;
