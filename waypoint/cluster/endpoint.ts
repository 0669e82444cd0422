/** One endpoint of one service as the waypoint speaks to it. */
import type { SocketAddress } from '../../common/base/address.ts';
import type { Service, Workload } from '../../common/decision/mesh-view.ts';
import type { ClusterState } from './cluster-state.ts';
import type { EndpointState } from './endpoint-state.ts';

/** Where one attempt at a request goes. */
export interface PickedEndpoint {
  /** One endpoint of one service: connections to it are shared under this name. */
  readonly key: string;
  readonly workload: Workload;
  readonly service: Service | undefined;
  /** Of the application; undefined where the workload is known by hostname only. */
  readonly address: SocketAddress | undefined;
  readonly port: number;
  /** SPIFFE URIs, any of which the tunnel's other end may prove; undefined where there is no tunnel and the pod is reached in the clear. */
  readonly peers: readonly string[] | undefined;
  /** What is remembered of it; requests under way are counted by whoever sends them. */
  readonly load: EndpointState;
  /** The service, port and subset that it was chosen from: its settings and limits. */
  readonly cluster: ClusterState;
  /** Whose connection it is, where its beginning says so (PROXY protocol); such a connection is nobody else's. */
  readonly caller?: SocketAddress;
}
