/** The supervisor's small parts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../../../common/base/log.ts';
import { MeshStateWriter } from '../../../common/state/writer.ts';
import { readZtunnelSettings } from '../../../ztunnel/settings.ts';
import { prefetches } from '../../../ztunnel/supervisor/certificates.ts';
import { meshSource, xdsNode } from '../../../ztunnel/supervisor/control-plane.ts';
import { supervisorCounters } from '../../../ztunnel/supervisor/counters.ts';
import { ownPods } from '../../../ztunnel/supervisor/own-pods.ts';
import { FakeClock } from '../../support/fake-clock.ts';

test('a node’s proxy introduces itself as the control plane expects it, metadata of its own winning', () => {
  const settings = readZtunnelSettings({
    POD_NAME: 'ztunnel-1',
    POD_NAMESPACE: 'istio-system',
    INSTANCE_IP: '10.0.0.7',
    NODE_NAME: 'node-1',
    CLUSTER_ID: 'cluster1',
    ISTIO_META_ISTIO_VERSION: '1.30',
    ISTIO_METAJSON_LABELS: '{"a":"b"}',
  });
  const node = xdsNode(settings);
  assert.equal(node.id, 'ztunnel~10.0.0.7~ztunnel-1.istio-system~istio-system.svc.cluster.local');
  assert.deepEqual(node.metadata, {
    NAME: 'ztunnel-1',
    NAMESPACE: 'istio-system',
    INSTANCE_IPS: '10.0.0.7',
    NODE_NAME: 'node-1',
    CLUSTER_ID: 'cluster1',
    ISTIO_VERSION: '1.30',
    LABELS: { a: 'b' },
  });
});

test('a dedicated proxy serves its one workload; a node’s proxy serves itself where it knows who it is', () => {
  const dedicated = readZtunnelSettings({
    PROXY_MODE: 'dedicated',
    PROXY_WORKLOAD_INFO: 'shop/a/b',
    POD_NAME: 'x',
    POD_NAMESPACE: 'y',
    SERVICE_ACCOUNT: 'z',
  });
  const info = { namespace: 'shop', name: 'a', serviceAccount: 'b' };
  assert.deepEqual(
    ownPods(dedicated).map(({ gathering, ...pod }) => pod),
    [{ uid: 'dedicated', info, netnsFd: undefined, kind: 'pod' }],
  );
  const self = { POD_NAME: 'ztunnel-1', POD_NAMESPACE: 'istio-system', SERVICE_ACCOUNT: 'ztunnel' };
  assert.equal(ownPods(readZtunnelSettings(self))[0]?.kind, 'self');
  for (const name of Object.keys(self)) assert.deepEqual(ownPods(readZtunnelSettings({ ...self, [name]: '' })), []);
});

test('certificates are fetched ahead by a node’s proxy with a CA only', () => {
  assert.equal(prefetches(readZtunnelSettings({})), true);
  assert.equal(prefetches(readZtunnelSettings({ CERT_DIR: '/certificates' })), false);
  assert.equal(prefetches(readZtunnelSettings({ PROXY_MODE: 'dedicated', PROXY_WORKLOAD_INFO: 'a/b/c' })), false);
});

const sourceOf = (env: Record<string, string>, writer = new MeshStateWriter()) => {
  const settings = readZtunnelSettings(env);
  const { series } = supervisorCounters(settings);
  return meshSource({ settings, token: () => undefined, writer, series, clock: new FakeClock(), log: silentLog });
};

const YAML = 'workloads: [{uid: a, name: a, namespace: shop, workloadIps: ["10.0.0.1"], services: {}}]';

test('a static configuration is there at once, and no control plane is called', async () => {
  const writer = new MeshStateWriter();
  const source = await sourceOf({ LOCAL_XDS: YAML }, writer);
  assert.equal(source.isSynced, true);
  assert.equal(source.name, 'static');
  assert.equal(writer.view().workloadByUid('a')?.name, 'a');
  await source.synced;
});

test('a static configuration that is wrong names the place, a missing file its path', async () => {
  await assert.rejects(sourceOf({ LOCAL_XDS: 'workloads: [{name: a}]' }), /workloadIps/);
  await assert.rejects(sourceOf({ LOCAL_XDS_PATH: '/nowhere/mesh.yaml' }), /\/nowhere\/mesh\.yaml/);
});

test('a control plane is waited for', async () => {
  const source = await sourceOf({ XDS_ADDRESS: 'http://127.0.0.1:1' });
  assert.equal(source.isSynced, false);
  assert.equal(source.name, '127.0.0.1:1');
  await source.stop();
});

test('on demand, what is held already is known at once, under either kind of name; what is not is asked for', async () => {
  const writer = new MeshStateWriter();
  const settings = readZtunnelSettings({
    LOCAL_XDS: YAML,
    XDS_ADDRESS: 'http://127.0.0.1:1',
    XDS_ON_DEMAND: 'true',
    ISTIO_META_DNS_CAPTURE: 'false',
  });
  const { series } = supervisorCounters(settings);
  const known: string[] = [];
  const source = await meshSource({
    settings,
    token: () => undefined,
    writer,
    series,
    clock: new FakeClock(),
    log: silentLog,
    onKnown: (names) => known.push(...names),
  });
  source.want('/10.0.0.1');
  source.want('/10.0.0.2');
  source.want('shop/nothing.shop.svc.cluster.local');
  assert.deepEqual(known, ['/10.0.0.1']);
  await source.stop();
});

test('with neither there is an empty mesh, and it is synced', async () => {
  assert.equal((await sourceOf({ XDS_ADDRESS: '' })).isSynced, true);
});
