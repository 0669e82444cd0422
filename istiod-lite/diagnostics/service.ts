/** The gRPC side of the proxies' reports: authenticated like xDS, and a proxy speaks for its own namespace only. */
import { type ServerDuplexStream, type ServiceDefinition, status as statusCodes, type UntypedHandleCall } from '@grpc/grpc-js';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { DiagnosticsService, ProxyQuery, ProxyReport } from '../../common/codec/gen/diagnostics.ts';
import { authenticate } from '../ca/authenticate.ts';
import type { TokenReviewer } from '../ca/token-review.ts';
import type { ProxyReports } from './reports.ts';

export interface DiagnosticsOptions {
  readonly reviewer: Pick<TokenReviewer, 'review'>;
  readonly reports: ProxyReports;
  readonly log: Log;
  readonly maxProxies: number;
}

type Call = ServerDuplexStream<ProxyReport | undefined, ProxyQuery>;

export const diagnosticsDefinition = {
  report: {
    ...DiagnosticsService.report,
    requestDeserialize: (bytes: Buffer): ProxyReport | undefined => {
      try {
        return ProxyReport.decode(bytes);
      } catch {
        // Reported by the handler, with the proxy's address.
        return undefined;
      }
    },
    responseSerialize: (query: ProxyQuery): Buffer => Buffer.from(ProxyQuery.encode(query).finish()),
  },
} satisfies ServiceDefinition;

export function createDiagnosticsHandler({ reviewer, reports, log, maxProxies }: DiagnosticsOptions): UntypedHandleCall {
  let open = 0;
  return (call: Call) => {
    const peer = call.getPeer();
    const refuse = (
      code: 'UNAUTHENTICATED' | 'PERMISSION_DENIED' | 'INVALID_ARGUMENT' | 'RESOURCE_EXHAUSTED' | 'UNAVAILABLE',
      message: string,
    ): void => {
      log.warn({ peer, code, error: message }, 'diagnostics stream refused');
      call.emit('error', Object.assign(new Error(message), { code: statusCodes[code], details: message }));
    };
    if (open >= maxProxies) {
      refuse('RESOURCE_EXHAUSTED', `${maxProxies} proxies report already`);
      return;
    }
    open++;
    const proxy = reports.connect();
    let over = false;
    const leave = (): void => {
      if (over) return;
      over = true;
      open--;
      proxy.leave();
    };
    call.on('cancelled', leave);
    call.on('close', leave);
    call.on('error', leave);
    authenticate(call.metadata, reviewer)
      .then((authentication) => {
        if ('refuse' in authentication) {
          refuse(authentication.refuse, authentication.message);
          return;
        }
        const { namespace } = authentication.caller;
        call.on('data', (report: ProxyReport | undefined) => {
          if (over) return;
          if (!report) refuse('INVALID_ARGUMENT', 'a message is no ProxyReport');
          else if (report.status && report.status.namespace !== namespace) {
            refuse('PERMISSION_DENIED', `the proxy reports for namespace ${report.status.namespace}, but its token is of ${namespace}`);
          } else proxy.take(report);
        });
        call.on('end', () => {
          leave();
          call.end();
        });
      })
      .catch((error: unknown) => refuse('UNAVAILABLE', errorMessage(error)));
  };
}
