/** What this ztunnel reports to istiod about itself: what `meshctl status` shows of it. */
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import { VERSION } from '../../common/base/version.ts';
import type { CertificateKeeper } from '../../common/certificates/keeper.ts';
import { DiagnosticsClient } from '../../common/client/diagnostics-client.ts';
import type { GrpcEndpoint, TokenSource } from '../../common/client/grpc-endpoint.ts';
import type { JournalAnswer } from '../../common/decision/journal.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import { countersOf } from '../../common/server/counters.ts';
import type { LogLevels } from '../../common/server/log-levels.ts';
import type { Readiness } from '../../common/server/readiness.ts';
import type { SeriesReader } from '../../common/server/shared-series.ts';
import type { Taps } from '../../common/server/taps.ts';
import type { ZtunnelSettings } from '../settings.ts';
import { explainInboundCall, explainOutboundCall } from './explain.ts';
import type { PodTable } from './pods.ts';

export interface DiagnosticsOptions {
  readonly settings: ZtunnelSettings;
  readonly endpoint: GrpcEndpoint;
  readonly token: TokenSource;
  readonly clock: Clock;
  readonly log: Log;
  readonly keeper: Pick<CertificateKeeper, 'states'>;
  readonly pods: Pick<PodTable, 'states'>;
  readonly readiness: Readiness;
  readonly levels: LogLevels;
  readonly reader: Pick<SeriesReader, 'collect'>;
  readonly taps: Pick<Taps, 'open'>;
  configDump(): object | Promise<object>;
  journal(wanted: { readonly sinceMs: number; readonly id: string }): Promise<JournalAnswer>;
  readonly view: MeshView;
}

export function diagnostics({
  settings,
  endpoint,
  token,
  clock,
  log,
  keeper,
  pods,
  readiness,
  levels,
  reader,
  taps,
  configDump,
  journal,
  view,
}: DiagnosticsOptions): DiagnosticsClient {
  return new DiagnosticsClient({
    endpoint,
    token,
    clusterId: settings.clusterId,
    clock,
    random: Math.random,
    log,
    status() {
      const states = keeper.states();
      const available = states.flatMap((state) => (state.at === 'available' ? [state.certificate] : []));
      const pending = readiness.pending();
      return {
        name: settings.podName,
        namespace: settings.podNamespace,
        node: settings.nodeName,
        kind: 'ztunnel',
        gateway: '',
        version: VERSION,
        ready: pending.length === 0,
        pods: pods.states().length,
        certificates: available.length,
        soonestExpiry: BigInt(available.length > 0 ? Math.round(Math.min(...available.map(({ notAfter }) => notAfter)) / 1000) : 0),
        problems: [
          ...states.flatMap((state) => (state.at === 'unavailable' ? [`no certificate for ${state.identity}: ${state.reason}`] : [])),
          ...pending.map((task) => `not ready: ${task}`),
        ],
      };
    },
    tap: (question, output) => taps.open(question, output),
    async answer(question) {
      const parts = { view, pods: pods.states(), settings };
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
        case 'outbound':
          return JSON.stringify(explainOutboundCall(parts, question.value));
        case 'inbound':
          return JSON.stringify(explainInboundCall(parts, question.value));
        case 'request':
          throw new Error('a ztunnel looks at no requests: ask a waypoint');
      }
    },
  });
}
