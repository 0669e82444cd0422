import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../common/base/clock.ts';
import { GatewayDeployer } from '../../../istiod-lite/gateway/deployer.ts';
import { FakeKubeApi } from '../../support/fake-kube-api.ts';
import { recordingLog } from '../../support/recording-log.ts';
import { until } from '../../support/until.ts';

const CLASSES = '/apis/gateway.networking.k8s.io/v1/gatewayclasses';
const DEPLOYMENTS = '/apis/apps/v1/deployments';
const CONTROLLER = 'istio.io/mesh-controller';

const classOf = (name: string, controllerName: string) => ({ metadata: { name }, spec: { controllerName } });

async function deployer(t: TestContext, prepare: (kube: FakeKubeApi) => void = () => undefined) {
  const stop = new AbortController();
  const kube = await FakeKubeApi.start({ after: (run) => t.after(run) });
  t.after(() => stop.abort(new Error('the test is over')));
  prepare(kube);
  const log = recordingLog();
  const gateways = new GatewayDeployer({
    api: kube.client('istiod'),
    clock: { ...systemClock, after: (ms, run) => systemClock.after(Math.min(ms, 5), run) },
    random: () => 0.5,
    log,
    signal: stop.signal,
    systemNamespace: 'istio-system',
    image: 'warren/waypoint:1',
    discoveryAddress: 'istiod.istio-system.svc:15012',
    clusterId: 'Kubernetes',
    trustDomain: 'cluster.local',
    revision: 'default',
    network: '',
    writes: () => true,
    setProblem: () => undefined,
  });
  return { kube, log, gateways };
}

test('the class of waypoints is made again and again while the API server refuses it, as while it cannot ask a webhook', async (t) => {
  let refused = 0;
  const { kube, log, gateways } = await deployer(t, (api) => {
    api.intercept = ({ method, path }) =>
      method === 'POST' && path === CLASSES && refused++ < 2 ? { status: 500, message: 'failed calling webhook' } : undefined;
  });
  gateways.everything();
  await until(() => kube.get(CLASSES, 'istio-waypoint') !== undefined);
  assert.equal(refused, 3);
  assert.equal(log.entries.filter(({ message }) => message === 'gateway class could not be created, trying again').length, 2);
});

test("Gateways of another class of this controller are deployed, with that class's defaults, once it is known; others' are not", async (t) => {
  const defaults = (forClass: string, replicas: number) => ({
    metadata: { name: forClass, namespace: 'istio-system', labels: { 'gateway.istio.io/defaults-for-class': forClass } },
    data: { deployment: `spec: { replicas: ${replicas} }` },
  });
  const { kube, gateways } = await deployer(t, (api) => {
    api.put('/api/v1/configmaps', defaults('large', 5));
    api.put('/api/v1/configmaps', defaults('istio-waypoint', 3));
  });
  for (const className of ['istio-waypoint', 'large', 'theirs'])
    gateways.gatewayChanged(
      { metadata: { name: className, namespace: 'shop', uid: className }, spec: { gatewayClassName: className, listeners: [] } },
      false,
    );
  await until(() => kube.get(DEPLOYMENTS, 'shop/istio-waypoint') !== undefined);
  assert.equal(kube.get(DEPLOYMENTS, 'shop/large'), undefined, 'before its class is known');
  gateways.classChanged(classOf('theirs', 'example.com/other'), false);
  gateways.classChanged(classOf('large', CONTROLLER), false);
  await until(() => kube.get(DEPLOYMENTS, 'shop/large') !== undefined);
  const made = (name: string) => {
    const { metadata, spec } = kube.get(DEPLOYMENTS, `shop/${name}`) ?? { metadata: {} };
    return [metadata.labels?.['gateway.networking.k8s.io/gateway-class-name'], (spec as { replicas?: number } | undefined)?.replicas];
  };
  assert.deepEqual(
    [made('istio-waypoint'), made('large')],
    [
      ['istio-waypoint', 3],
      ['large', 5],
    ],
  );
  assert.deepEqual(kube.keys(DEPLOYMENTS).sort(), ['shop/istio-waypoint', 'shop/large']);
});
