import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SettingsError } from '../../../common/base/settings.ts';
import { readWaypointSettings } from '../../../waypoint/settings.ts';
import { xdsNode } from '../../../waypoint/supervisor/control-plane.ts';

/** What a Gateway's Deployment sets. */
const POD = {
  XDS_ADDRESS: 'istiod.istio-system.svc:15012',
  CA_ADDRESS: 'istiod.istio-system.svc:15012',
  ISTIO_META_CLUSTER_ID: 'c1',
  TRUST_DOMAIN: 'example.org',
  GATEWAY_NAME: 'waypoint',
  POD_NAME: 'waypoint-abc',
  POD_NAMESPACE: 'shop',
  NODE_NAME: 'node-1',
  INSTANCE_IP: '10.0.0.9',
  SERVICE_ACCOUNT: 'waypoint',
};

test("a pod's environment says who the waypoint is and where its control plane", () => {
  const settings = readWaypointSettings(POD);
  assert.equal(settings.identity, 'spiffe://example.org/ns/shop/sa/waypoint');
  assert.equal(settings.host, 'waypoint.shop.svc');
  assert.deepEqual([settings.xds?.target, settings.xds?.tls, settings.ca?.target], [POD.XDS_ADDRESS, true, POD.CA_ADDRESS]);
  assert.deepEqual(
    [settings.workers, settings.hbonePort, settings.adminPort, settings.statsPort, settings.readinessPort],
    [2, 15008, 15000, 15020, 15021],
  );
  assert.deepEqual(settings.plaintextListen, []);
});

test('it introduces itself with its name, its namespace and its Gateway', () => {
  const { id, metadata } = xdsNode(readWaypointSettings(POD));
  assert.equal(id, 'waypoint~10.0.0.9~waypoint-abc.shop~shop.svc.cluster.local');
  assert.deepEqual([metadata?.NAMESPACE, metadata?.SERVICE_ACCOUNT, metadata?.GATEWAY_NAME], ['shop', 'waypoint', 'waypoint']);
});

test('plaintext ports are each in front of one service', () => {
  const { plaintextListen } = readWaypointSettings({ ...POD, PLAINTEXT_LISTEN: '8080=shop/orders.example:80, 8081=shop/web.example:81' });
  assert.deepEqual(plaintextListen, [
    { port: 8080, namespace: 'shop', hostname: 'orders.example', servicePort: 80 },
    { port: 8081, namespace: 'shop', hostname: 'web.example', servicePort: 81 },
  ]);
});

test('everything that is wrong is told at once', () => {
  assert.throws(
    () =>
      readWaypointSettings({
        ...POD,
        PLAINTEXT_LISTEN: '8080:shop',
        WARREN_WORKER_THREADS: 'many',
        RUST_LOG: 'loud',
        WARREN_LOAD_BALANCING: 'best',
        ISTIO_METAJSON_A: '{',
      }),
    (error) =>
      error instanceof SettingsError &&
      ['PLAINTEXT_LISTEN', 'WARREN_WORKER_THREADS', 'RUST_LOG', 'WARREN_LOAD_BALANCING', 'ISTIO_METAJSON_A'].every((name) =>
        error.message.includes(name),
      ),
  );
  assert.throws(() => readWaypointSettings({ ...POD, LOCAL_ROUTES_PATH: 'routes.yaml' }), /LOCAL_ROUTES_PATH: needs LOCAL_XDS_PATH/);
});
