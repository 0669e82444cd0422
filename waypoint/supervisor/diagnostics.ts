/** What this waypoint reports to istiod about itself: what `meshctl status` shows of it. */
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import { VERSION } from '../../common/base/version.ts';
import type { CertificateKeeper } from '../../common/certificates/keeper.ts';
import { DiagnosticsClient } from '../../common/client/diagnostics-client.ts';
import type { GrpcEndpoint, TokenSource } from '../../common/client/grpc-endpoint.ts';
import type { JournalAnswer } from '../../common/decision/journal.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import type { Buckets } from '../../common/decision/rate-limit.ts';
import { countersOf } from '../../common/server/counters.ts';
import type { LogLevels } from '../../common/server/log-levels.ts';
import type { Readiness } from '../../common/server/readiness.ts';
import type { SeriesReader } from '../../common/server/shared-series.ts';
import type { Taps } from '../../common/server/taps.ts';
import type { WaypointSettings } from '../settings.ts';
import type { ConfigurationPush } from '../worker/configuration.ts';
import { explainRequestCall } from './explain.ts';

export interface DiagnosticsOptions {
  readonly settings: WaypointSettings;
  readonly endpoint: GrpcEndpoint;
  readonly token: TokenSource;
  readonly clock: Clock;
  readonly log: Log;
  readonly keeper: Pick<CertificateKeeper, 'states'>;
  readonly readiness: Readiness;
  readonly levels: LogLevels;
  readonly reader: Pick<SeriesReader, 'collect'>;
  readonly taps: Pick<Taps, 'open'>;
  configDump(): object | Promise<object>;
  journal(wanted: { readonly sinceMs: number; readonly id: string }): Promise<JournalAnswer>;
  readonly view: MeshView;
  /** Routes, policies and the like that are in force. */
  configuration(): readonly ConfigurationPush[];
  /** Of rate limits, which workers share. */
  readonly buckets: Buckets;
}

export function diagnostics({
  settings,
  endpoint,
  token,
  clock,
  log,
  keeper,
  readiness,
  levels,
  reader,
  taps,
  configDump,
  journal,
  view,
  configuration,
  buckets,
}: DiagnosticsOptions): DiagnosticsClient {
  return new DiagnosticsClient({
    endpoint,
    token,
    clusterId: settings.clusterId,
    clock,
    random: Math.random,
    log,
    status() {
      const [state] = keeper.states();
      const pending = readiness.pending();
      const expiry = state?.at === 'available' ? Math.round(state.certificate.notAfter / 1000) : 0;
      return {
        name: settings.podName,
        namespace: settings.podNamespace,
        node: settings.nodeName,
        kind: 'waypoint',
        gateway: `${settings.podNamespace}/${settings.gatewayName}`,
        version: VERSION,
        ready: pending.length === 0,
        pods: 0,
        certificates: expiry > 0 ? 1 : 0,
        soonestExpiry: BigInt(expiry),
        problems: [
          ...(state?.at === 'unavailable' ? [`no certificate for ${state.identity}: ${state.reason}`] : []),
          ...pending.map((task) => `not ready: ${task}`),
        ],
      };
    },
    tap: (question, output) => taps.open(question, output),
    async answer(question) {
      switch (question.$case) {
        case 'configDump':
          return JSON.stringify(await configDump());
        case 'counters':
          return JSON.stringify(countersOf(reader, question.value, clock.now()));
        case 'tap':
        case 'cancel':
          throw new Error('not a question that is answered once');
        case 'journal':
          return JSON.stringify(await journal({ sinceMs: Number(question.value.sinceMs), id: question.value.id }));
        case 'log':
          levels.change(question.value);
          return JSON.stringify({ level: String(levels) });
        case 'request':
          return JSON.stringify(explainRequestCall({ view, configuration: configuration(), buckets, clock, settings }, question.value));
        case 'outbound':
        case 'inbound':
          throw new Error('a waypoint captures no pods: ask the ztunnel of its node');
      }
    },
  });
}
