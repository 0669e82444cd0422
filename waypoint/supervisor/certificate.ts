/** The waypoint's one certificate: its own service account's, which nobody asks for on its behalf. */

import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import { CertificateKeeper, type CertificateListener, type CertificateSource } from '../../common/certificates/keeper.ts';
import { caSource, fileSource } from '../../common/certificates/sources.ts';
import { CaClient } from '../../common/client/ca-client.ts';
import type { TokenSource } from '../../common/client/grpc-endpoint.ts';
import type { WaypointSettings } from '../settings.ts';

export interface CertificateOptions {
  readonly settings: WaypointSettings;
  readonly token: TokenSource;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly listener: CertificateListener;
}

export function certificateKeeper({ settings, token, clock, random, log, listener }: CertificateOptions): CertificateKeeper {
  return new CertificateKeeper({ source: sourceOf(settings, token), clock, random, log, listener });
}

function sourceOf({ certDir, ca, clusterId, secretTtlMs }: WaypointSettings, token: TokenSource): CertificateSource {
  if (certDir !== undefined) return fileSource(certDir);
  if (!ca) return { fetch: () => Promise.reject(new Error('neither CA_ADDRESS nor CERT_DIR is set')) };
  return caSource({
    ca: new CaClient({ endpoint: ca, token, clusterId }),
    validitySeconds: Math.round(secretTtlMs / 1000),
    impersonate: false,
  });
}
