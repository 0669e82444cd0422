/** The chart, rendered by real Helm: the plain manifest is what it makes, every platform's values render, bad values are refused by name. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { CHART, findHelm, MANIFEST_FILE, renderChart, renderManifest } from '../../scripts/manifest.ts';
import { documentsOf, manifest, nameOf, refusals, root } from '../support/manifests.ts';

const helm = findHelm(root, process.env) ?? '';
const skip = helm === '' && !process.env.CI ? 'no helm here (scripts/helm version installs one)' : false;

test('the plain manifest is what Helm renders of the chart', { skip }, () => {
  assert.equal(
    readFileSync(join(root, MANIFEST_FILE), 'utf8'),
    renderManifest(root, helm),
    `${MANIFEST_FILE} is not what its chart makes: run scripts/node scripts/generate.ts`,
  );
});

for (const file of globSync('platforms/*.yaml', { cwd: join(root, CHART) }).sort()) {
  test(`with the values of ${file} the API server takes every object, and the file says whether it was tested`, { skip }, () => {
    const path = join(root, CHART, file);
    const objects = documentsOf(renderChart(root, helm, ['--values', path]));
    assert.deepEqual(refusals(objects), []);
    assert.match(readFileSync(path, 'utf8'), /^# .*(UNTESTED: no test runs on it|Tested by test\/\S+\.test\.ts)/m);
  });
}

test('with everything turned on, and with each piece turned off, the API server takes every object', { skip }, () => {
  const on = [
    'image.tag=v1',
    'image.pullSecrets={regcred}',
    'network=one',
    'logging.json=true',
    'dnsCapture=true',
    'revocationLists=true',
    'caAddress=istio-csr.cert-manager.svc:443',
    'resourceQuota.enabled=true',
  ];
  const more = ['seLinuxOptions.type=spc_t', 'openshift.securityContextConstraints=true', 'istiod.env.PILOT_PUSH_THROTTLE=5'];
  for (const values of [[...on, ...more], ['istiod.enabled=false'], ['ztunnel.enabled=false'], ['cni.enabled=false']]) {
    const objects = documentsOf(
      renderChart(
        root,
        helm,
        values.flatMap((value) => ['--set', value]),
      ),
    );
    assert.deepEqual(refusals(objects), [], values.join(' '));
    assert.ok(objects.length > 5, values.join(' '));
    const cluster = objects.filter(({ kind }) => kind === 'ClusterRole');
    const rules = cluster.flatMap((role) => role.rules as readonly { readonly resources: readonly string[] }[]);
    assert.deepEqual(
      rules.filter(({ resources }) => resources.some((resource) => /^(\*|secrets(\/|$))/.test(resource))),
      [],
      'no verb on the Secrets of the cluster',
    );
  }
});

test('a piece that is turned off leaves nothing of itself', { skip }, () => {
  const whole = manifest(MANIFEST_FILE).filter(({ kind }) => kind !== 'Namespace');
  for (const [piece, app] of [
    ['istiod', 'istiod'],
    ['ztunnel', 'ztunnel'],
    ['cni', 'istio-cni-node'],
  ] as const) {
    const rendered = documentsOf(renderChart(root, helm, ['--set', `${piece}.enabled=false`]));
    const expected = whole.filter(({ metadata }) => metadata.labels?.app !== app);
    assert.deepEqual(rendered.map(nameOf).sort(), expected.map(nameOf).sort(), `without ${piece}`);
  }
});

test('a single istiod has no disruption budget, which would keep its node from being drained', { skip }, () => {
  const kinds = documentsOf(renderChart(root, helm, ['--set', 'istiod.replicas=1'])).map(({ kind }) => kind);
  assert.ok(!kinds.includes('PodDisruptionBudget'));
});

test('another namespace is told to every piece', { skip }, () => {
  const text = renderChart(root, helm, ['--namespace', 'mesh']);
  assert.doesNotMatch(text, /istio-system/);
  assert.match(text, /value: "istiod\.mesh\.svc:15012"/);
  assert.match(text, /value: mesh\/ztunnel/);
});

for (const [value, named] of [
  ['istiod.replicas=two', '/istiod/replicas'],
  ['istiod.replicas=0', '/istiod/replicas'],
  ['istiod.replica=2', "'/istiod': additional properties 'replica'"],
  ['cni.binDir=opt/cni/bin', '/cni/binDir'],
  ['image.pullPolicy=Sometimes', '/image/pullPolicy'],
  ['logging.level=loud', '/logging/level'],
  ['ztunnel.istiodAddress=istiod', '/ztunnel/istiodAddress'],
  ['ztunnel.resources.limits.memory=lots', '/ztunnel/resources/limits/memory'],
  ['trustDomain=Cluster Local', '/trustDomain'],
  ['dnsCapture=maybe', '/dnsCapture'],
  ['istiod.podDisruptionBudget.minAvailable=most', '/istiod/podDisruptionBudget/minAvailable'],
] as const) {
  test(`the value ${value} is refused by name`, { skip }, () => {
    assert.throws(
      () => renderChart(root, helm, ['--set', value]),
      (error: Error) => error.message.includes(named),
    );
  });
}

test('a cluster older than 1.31 is refused', { skip }, () => {
  assert.throws(() => renderChart(root, helm, ['--kube-version', '1.30.9']), /requires kubeVersion: >=1\.31/);
});

test('helm lint has nothing to say', { skip }, () => {
  const { status, stdout, stderr } = spawnSync(helm, ['lint', '--strict', join(root, CHART)], { encoding: 'utf8' });
  assert.equal(status, 0, stdout + stderr);
});

test('Helm would install the definitions of Istio’s kinds and of our own beside the objects', { skip }, () => {
  const rendered = documentsOf(renderChart(root, helm, ['--include-crds'])).filter(({ kind }) => kind === 'CustomResourceDefinition');
  assert.deepEqual(
    rendered.map(nameOf).sort(),
    ['istio', 'warren'].flatMap((file) => manifest(`${CHART}/crds/${file}.yaml`).map(nameOf)).sort(),
  );
});
