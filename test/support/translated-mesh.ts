/** A translation of objects in a test's hand, and what it tells waypoints and writes into statuses. */
import { HttpAuthorization, JwtAuthentication, ServiceRoutes, ServiceTraffic, WorkloadLabels } from '../../common/codec/gen/waypoint.ts';
import type { StatusWrite } from '../../istiod-lite/model/conditions.ts';
import { MeshIndex } from '../../istiod-lite/model/index.ts';
import type { WatchedKindName } from '../../istiod-lite/model/watched-kinds.ts';
import * as make from './kube-objects.ts';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};

export class TranslatedMesh {
  readonly index = new MeshIndex(config);
  /** The newest write to each object, by `Kind namespace/name fieldManager`. */
  readonly #statuses = new Map<string, StatusWrite>();

  /** Namespace shop with the ready waypoint wp, and Service web:80 bound to it. */
  static shop(): TranslatedMesh {
    const mesh = new TranslatedMesh();
    mesh.set('GatewayClass', { metadata: { name: 'istio-waypoint', generation: 1 }, spec: { controllerName: 'istio.io/mesh-controller' } });
    mesh.set('Namespace', make.namespace('shop', { 'istio.io/use-waypoint': 'wp' }));
    mesh.set('Gateway', make.gateway({ name: 'wp' }));
    mesh.set('Service', make.service({ name: 'web' }));
    return mesh;
  }

  set(kind: WatchedKindName, object: unknown): this {
    this.index.apply({ type: 'modified', kind, object });
    return this;
  }

  remove(kind: WatchedKindName, object: unknown): this {
    this.index.apply({ type: 'deleted', kind, object });
    return this;
  }

  flush(): this {
    for (const write of this.index.flush().statuses)
      this.#statuses.set(`${write.kind} ${write.namespace}/${write.name} ${write.fieldManager}`, write);
    return this;
  }

  routes(waypoint = 'shop/wp'): ServiceRoutes[] {
    const [namespace = '', name = ''] = waypoint.split('/');
    this.flush();
    return this.index.waypointResources(namespace, name).routes.map(({ bytes }) => ServiceRoutes.decode(bytes));
  }

  /** What the waypoint is told of its services' endpoints. */
  traffic(waypoint = 'shop/wp'): ServiceTraffic[] {
    const [namespace = '', name = ''] = waypoint.split('/');
    this.flush();
    return this.index.waypointResources(namespace, name).traffic.map(({ bytes }) => ServiceTraffic.decode(bytes));
  }

  labels(waypoint = 'shop/wp'): WorkloadLabels[] {
    const [namespace = '', name = ''] = waypoint.split('/');
    this.flush();
    return this.index.waypointResources(namespace, name).labels.map(({ bytes }) => WorkloadLabels.decode(bytes));
  }

  tokens(waypoint = 'shop/wp'): JwtAuthentication[] {
    const [namespace = '', name = ''] = waypoint.split('/');
    this.flush();
    return this.index.waypointResources(namespace, name).jwtAuthentications.map(({ bytes }) => JwtAuthentication.decode(bytes));
  }

  policies(waypoint = 'shop/wp'): HttpAuthorization[] {
    const [namespace = '', name = ''] = waypoint.split('/');
    this.flush();
    return this.index.waypointResources(namespace, name).httpAuthorizations.map(({ bytes }) => HttpAuthorization.decode(bytes));
  }

  /** Conditions last written to an object, `Type=Status Reason`; of a route, those of its first parent. */
  conditions(object: string): string[] {
    return (this.status(object)?.conditions ?? []).map(({ type, status, reason }) => `${type}=${status} ${reason}`);
  }

  message(object: string, type: string): string | undefined {
    return this.status(object)?.conditions.find((condition) => condition.type === type)?.message;
  }

  /** @param object `Kind namespace/name`, and the field manager where there are several */
  status(object: string): StatusWrite | undefined {
    this.flush();
    for (const [key, write] of this.#statuses) if (key === object || key.startsWith(`${object} `)) return write;
    return undefined;
  }
}
