/** What is known about a connection: metrics, its line in the access log and its events are made from it. */
import type { SocketAddress } from '../../common/base/address.ts';
import type { ProxyError } from '../../common/base/errors.ts';
import type { Baggage } from '../../common/decision/headers.ts';
import type { Service, Workload } from '../../common/decision/mesh-view.ts';

export interface ConnectionFacts {
  readonly direction: 'inbound' | 'outbound';
  /** Trace id: what `meshctl explain` asks for. */
  readonly id: string;
  readonly source: SocketAddress;
  readonly sourceWorkload: Workload | undefined;
  /** What the caller says of itself; used where its workload is not known. */
  readonly sourceBaggage?: Baggage | undefined;
  /** Only where TLS proved it. */
  readonly sourceIdentity: string | undefined;
  /** Where the TCP connection goes, or came in: `:15008` for tunnels. */
  readonly destination: SocketAddress;
  /** The CONNECT's authority. */
  readonly authority?: string | undefined;
  readonly destinationWorkload: Workload | undefined;
  readonly destinationIdentity: string | undefined;
  readonly service: Pick<Service, 'hostname' | 'namespace' | 'name'> | undefined;
  readonly mutualTls: boolean;
  /** What the pod asked for (outbound), or what is dialled in it (inbound). */
  readonly target: SocketAddress;
}

/** A connection that ended before anything was known about it but addresses. */
export interface EarlyFailure {
  readonly direction: ConnectionFacts['direction'];
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
  readonly error: ProxyError;
  readonly id?: string;
  /** Counted, but without a line of its own. */
  readonly quiet?: boolean;
  /** Who asked, and for which service, where that is known. */
  readonly client?: Workload;
  readonly service?: Pick<Service, 'hostname' | 'namespace' | 'name'> | undefined;
}
