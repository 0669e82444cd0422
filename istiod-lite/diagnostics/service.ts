/** The gRPC side of the proxies' reports: authenticated like xDS, and a proxy speaks for itself only. */
import { type ServerDuplexStream, type ServiceDefinition, status as statusCodes, type UntypedHandleCall } from '@grpc/grpc-js';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { DiagnosticsService, ProxyQuery, ProxyReport, type ProxyStatus } from '../../common/codec/gen/diagnostics.ts';
import type { Gate } from '../access/access.ts';
import type { Caller } from '../access/token-review.ts';
import type { ProxyReports } from './reports.ts';

export interface DiagnosticsOptions {
  readonly access: Gate;
  readonly reports: ProxyReports;
  readonly log: Log;
  readonly maxProxies: number;
  /** Whose waypoints are known; before that a report cannot be judged. */
  ready(): boolean;
  /** Ends all streams, so that proxies report to another replica. */
  readonly draining: AbortSignal;
}

type Call = ServerDuplexStream<ProxyReport | undefined, ProxyQuery>;
type Code = 'UNAUTHENTICATED' | 'PERMISSION_DENIED' | 'INVALID_ARGUMENT' | 'RESOURCE_EXHAUSTED' | 'UNAVAILABLE';

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

export function createDiagnosticsHandler(options: DiagnosticsOptions): UntypedHandleCall {
  const { access, reports, log, maxProxies, ready, draining } = options;
  let open = 0;
  return (call: Call) => {
    const peer = call.getPeer();
    const refuse = (code: Code, message: string): void => {
      log[code === 'UNAVAILABLE' ? 'info' : 'warn']({ peer, code, error: message }, 'diagnostics stream refused');
      call.emit('error', Object.assign(new Error(message), { code: statusCodes[code], details: message }));
    };
    if (!ready()) {
      refuse('UNAVAILABLE', 'istiod has not read the cluster yet');
      return;
    }
    if (open >= maxProxies) {
      refuse('RESOURCE_EXHAUSTED', `${maxProxies} proxies report already`);
      return;
    }
    open++;
    const proxy = reports.connect((query) => call.write(query));
    let over = false;
    const leave = (): void => {
      if (over) return;
      over = true;
      open--;
      draining.removeEventListener('abort', drain);
      proxy.leave();
    };
    const drain = (): void => {
      leave();
      call.emit('error', Object.assign(new Error('drained'), { code: statusCodes.UNAVAILABLE, details: 'istiod is shutting down' }));
    };
    draining.addEventListener('abort', drain);
    call.on('cancelled', leave);
    call.on('close', leave);
    call.on('error', leave);
    access
      .authenticate(call)
      .then((authentication) => {
        if (over) return;
        if ('refuse' in authentication) {
          refuse(authentication.refuse, authentication.message);
          return;
        }
        call.on('data', (report: ProxyReport | undefined) => {
          if (over) return;
          const problem = report?.status && notItself(access, authentication.caller, report.status);
          if (!report) refuse('INVALID_ARGUMENT', 'a message is no ProxyReport');
          else if (problem) refuse('PERMISSION_DENIED', problem);
          else proxy.take(report);
        });
        call.on('end', () => {
          leave();
          call.end();
        });
      })
      .catch((error: unknown) => refuse('UNAVAILABLE', errorMessage(error)));
  };
}

function notItself(access: Gate, caller: Caller, { kind, name, namespace }: ProxyStatus): string | undefined {
  if (kind !== 'ztunnel' && kind !== 'waypoint') return `a ${JSON.stringify(kind.slice(0, 100))} does not report here`;
  if (namespace !== caller.namespace) return `the proxy reports for namespace ${namespace}, but its token is of ${caller.namespace}`;
  if (caller.podName !== '' && caller.podName !== name) return `the proxy reports as ${name}, but its token is of pod ${caller.podName}`;
  return access.mayNot(`diagnostics/${kind}`, caller, { namespace });
}
