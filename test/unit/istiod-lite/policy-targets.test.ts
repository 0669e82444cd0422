import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import type { WatchedKindName } from '../../../istiod-lite/model/watched-kinds.ts';
import * as make from '../../support/kube-objects.ts';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};
const labels = { 'istio.io/use-waypoint': 'wp' };

class Mesh {
  readonly #index = new MeshIndex(config);

  set(kind: WatchedKindName, object: unknown): this {
    this.#index.apply({ type: 'modified', kind, object });
    return this;
  }

  /** Conditions of the policy that were written by the changes so far. */
  written(): string[] {
    return this.#index
      .flush()
      .statuses.filter(({ kind }) => kind === 'AuthorizationPolicy')
      .flatMap(({ fieldManager, conditions }) =>
        conditions.map(({ type, status, reason }) => `${fieldManager}: ${type}=${status} ${reason}`),
      );
  }
}

const policy = (targetRefs: readonly Record<string, unknown>[], namespace = 'shop') =>
  make.authorizationPolicy({ name: 'p', namespace, spec: { targetRefs, rules: [{}] } });
const web = { kind: 'Service', group: '', name: 'web' };
const manager = 'istio-ambient-waypoint-policy';

test('as the target and its waypoint come and go, the status follows', () => {
  const mesh = new Mesh().set('AuthorizationPolicy', policy([web]));
  assert.deepEqual(mesh.written(), [`${manager}: WaypointAccepted=False TargetNotFound`]);
  mesh.set('Service', make.service({ name: 'web' }));
  assert.deepEqual(mesh.written(), [`${manager}: WaypointAccepted=False AncestorNotBound`]);
  mesh.set('Service', make.service({ name: 'web', labels }));
  assert.deepEqual(
    mesh.written(),
    [`${manager}: WaypointAccepted=False AncestorNotBound`],
    'the message names the waypoint that is not there',
  );
  mesh.set('Gateway', make.gateway({ name: 'wp' }));
  assert.deepEqual(mesh.written(), [`${manager}: WaypointAccepted=True Accepted`]);
});

test('a namespace that gets a waypoint binds the targets in it', () => {
  const mesh = new Mesh()
    .set('AuthorizationPolicy', policy([web]))
    .set('Service', make.service({ name: 'web' }))
    .set('Gateway', make.gateway({ name: 'wp' }));
  mesh.written();
  assert.deepEqual(mesh.set('Namespace', make.namespace('shop', labels)).written(), [`${manager}: WaypointAccepted=True Accepted`]);
});

test('several targets of which some are bound are told apart', () => {
  const mesh = new Mesh().set('Gateway', make.gateway({ name: 'wp' }));
  mesh.set('AuthorizationPolicy', policy([web, { kind: 'Gateway', group: 'gateway.networking.k8s.io', name: 'wp' }]));
  assert.deepEqual(mesh.written(), [`${manager}: WaypointAccepted=True PartiallyInvalid`]);
});

test('targets of other namespaces are not found, and of other kinds are invalid', () => {
  const mesh = new Mesh().set('Service', make.service({ name: 'web', namespace: 'legacy' }));
  assert.deepEqual(mesh.set('AuthorizationPolicy', policy([{ ...web, namespace: 'legacy' }])).written(), [
    `${manager}: WaypointAccepted=False TargetNotFound`,
  ]);
  assert.deepEqual(new Mesh().set('AuthorizationPolicy', policy([{ kind: 'Pod', group: '', name: 'x' }])).written(), [
    `${manager}: WaypointAccepted=False Invalid`,
  ]);
});

test('a class of waypoints may be targeted from the root namespace alone', () => {
  const target = { kind: 'GatewayClass', group: 'gateway.networking.k8s.io', name: 'istio-waypoint' };
  const made = { metadata: { name: 'istio-waypoint' }, spec: { controllerName: 'istio.io/mesh-controller' } };
  const mesh = () => new Mesh().set('GatewayClass', made);
  assert.deepEqual(
    mesh()
      .set('AuthorizationPolicy', policy([target], 'istio-system'))
      .written(),
    [`${manager}: WaypointAccepted=True Accepted`],
  );
  assert.deepEqual(
    mesh()
      .set('AuthorizationPolicy', policy([target]))
      .written(),
    [`${manager}: WaypointAccepted=False Invalid`],
  );
});

test("a policy that gets targets gives up ztunnel's condition", () => {
  const mesh = new Mesh().set('AuthorizationPolicy', make.authorizationPolicy({ name: 'p', spec: { rules: [{}] } }));
  assert.deepEqual(mesh.written(), ['istio-ambient-ztunnel-policy: ZtunnelAccepted=True Accepted']);
  const shown = {
    conditions: [{ type: 'ZtunnelAccepted', status: 'True', reason: 'Accepted', message: 'enforced by ztunnel', observedGeneration: 1 }],
  };
  const index = new MeshIndex(config);
  index.apply({ type: 'added', kind: 'AuthorizationPolicy', object: { ...policy([web]), status: shown } });
  assert.deepEqual(
    index.flush().statuses.map(({ fieldManager, conditions }) => [fieldManager, conditions.length]),
    [
      ['istio-ambient-ztunnel-policy', 0],
      [manager, 1],
    ],
  );
});
