import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../../common/client/kube-api.ts';
import { selfSignedRoot } from '../../../common/codec/x509/certificate.ts';
import { findingLine } from '../../../meshctl/check/finding.ts';
import { checkInstallation, type InstallationFacts } from '../../../meshctl/check/installation.ts';
import type { Observations } from '../../../meshctl/status/report.ts';

const NOW = Date.UTC(2026, 5, 1);
const DAY = 86_400_000;
const labels = { 'app.kubernetes.io/version': '0.1.0', 'warren.dev/installation': 'istio-system' };

const deployment = (available = 2): KubeObject => ({
  metadata: { name: 'istiod', namespace: 'istio-system', generation: 1, labels },
  spec: { replicas: 2 },
  status: { observedGeneration: 1, replicas: 2, updatedReplicas: 2, availableReplicas: available, readyReplicas: available },
});
const daemonSet = (name: string, available = 2): KubeObject => ({
  metadata: { name, namespace: 'istio-system', generation: 1, labels },
  status: { observedGeneration: 1, desiredNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: available },
});
const root = (endsMs: number): string =>
  selfSignedRoot({ trustDomain: 'cluster.local', notBefore: NOW - DAY, notAfter: endsMs }).certificatePem;
const YEARS = root(NOW + 3650 * DAY);
const rootMap = (namespace: string, pem: string): KubeObject => ({
  metadata: { name: 'istio-ca-root-cert', namespace },
  data: { 'root-cert.pem': pem },
});
const namespace = (name: string, ambient = false): KubeObject => ({
  metadata: { name, ...(ambient && { labels: { 'istio.io/dataplane-mode': 'ambient' } }) },
});
const pod = (name: string, enrolled: boolean): KubeObject => ({
  metadata: { name, namespace: 'shop', ...(enrolled && { annotations: { 'ambient.istio.io/redirection': 'enabled' } }) },
  spec: { nodeName: 'node1' },
  status: { phase: 'Running' },
});

const mesh = (changed: Partial<Observations> = {}): Observations => ({
  systemNamespace: 'istio-system',
  namespaces: [namespace('istio-system'), namespace('shop', true)],
  pods: [pod('orders', true)],
  services: [],
  nodes: [],
  deployments: [deployment()],
  daemonSets: [daemonSet('ztunnel'), daemonSet('istio-cni-node')],
  gateways: [],
  policies: [],
  syncz: [{ proxy: 'ztunnel-1.istio-system', istio_version: '0.1.0' }],
  untranslated: [],
  proxies: [
    {
      name: 'ztunnel-1',
      namespace: 'istio-system',
      kind: 'ztunnel',
      certificates: 3,
      soonestExpiry: (NOW + DAY) / 1000,
      problems: [],
      refusals: [],
    },
  ],
  failures: [],
  nowMs: NOW,
  ...changed,
});

const facts = (changed: Partial<InstallationFacts> = {}): InstallationFacts => ({
  mesh: mesh(),
  roots: [rootMap('istio-system', YEARS), rootMap('shop', YEARS)],
  definitions: [
    'authorizationpolicies.security.istio.io',
    'peerauthentications.security.istio.io',
    'serviceentries.networking.istio.io',
    'gateways.gateway.networking.k8s.io',
  ],
  lease: { metadata: {}, spec: { holderIdentity: 'istiod-1', renewTime: new Date(NOW - 5000).toISOString(), leaseDurationSeconds: 30 } },
  ...changed,
});

const bad = (changed: Partial<InstallationFacts>, client = '0.1.0'): string[] =>
  checkInstallation(facts(changed), client)
    .filter(({ severity }) => severity !== 'ok')
    .map((finding) => findingLine(finding, false));

test('a sound installation says what was looked at, and nothing to mend', () => {
  const lines = checkInstallation(facts(), '0.1.0').map((finding) => findingLine(finding, false));
  assert.deepEqual(lines, [
    '✔ Deployment istio-system/istiod: 2 of 2 ready',
    '✔ DaemonSet istio-system/ztunnel: 2 of 2 ready',
    '✔ DaemonSet istio-system/istio-cni-node: 2 of 2 ready',
    '✔ version: 0.1.0 is installed, this is meshctl 0.1.0',
    '✔ writer: istiod-1',
    `✔ root certificate: valid until ${new Date(NOW + 3650 * DAY).toISOString()}`,
    `✔ certificates: 3, the first expires at ${new Date(NOW + DAY).toISOString()}`,
    "✔ definitions: Istio's kinds are there",
    '✔ Gateway API: is there',
    '✔ pods: 1 pod in the mesh',
  ]);
});

test('nothing installed is one line', () => {
  assert.deepEqual(bad({ mesh: mesh({ deployments: [], daemonSets: [] }) }), [
    '✘ installation: nothing is installed in namespace istio-system (meshctl install, or -i NAMESPACE)',
  ]);
});

test('a piece that is half ready is a warning, one that is not ready at all an error, one that is missing too', () => {
  const found = bad({ mesh: mesh({ deployments: [deployment(1)], daemonSets: [daemonSet('ztunnel', 0)] }) });
  assert.deepEqual(found, [
    '! Deployment istio-system/istiod: 1 of 2 ready (kubectl describe deployment -n istio-system istiod)',
    '✘ DaemonSet istio-system/ztunnel: 0 of 2 ready (kubectl describe daemonset -n istio-system ztunnel)',
    '✘ istio-cni-node: is not installed (meshctl upgrade, unless something else stands in for it)',
  ]);
});

test('versions that differ are named: of this program, and of proxies', () => {
  assert.deepEqual(bad({}, '0.2.0'), ['! version: 0.1.0 is older than this program (meshctl upgrade)']);
  assert.deepEqual(bad({}, '0.0.1'), ['! version: meshctl 0.0.1 is older than what is installed (use meshctl 0.1.0)']);
  const old = mesh({ syncz: [{ proxy: 'ztunnel-1.istio-system', istio_version: '0.0.9' }] });
  assert.deepEqual(bad({ mesh: old }), [
    '! version: proxies of version 0.0.9 are connected beside 0.1.0 (kubectl rollout status, or meshctl upgrade)',
  ]);
});

test('a lease that nobody renews means that nobody writes', () => {
  const stale = {
    metadata: {},
    spec: { holderIdentity: 'istiod-1', renewTime: new Date(NOW - 120_000).toISOString(), leaseDurationSeconds: 30 },
  };
  const line = '✘ writer: no replica of istiod writes to the cluster (kubectl logs -n istio-system deploy/istiod)';
  assert.deepEqual(bad({ lease: stale }), [line]);
  assert.deepEqual(bad({ lease: undefined }), [line]);
});

test('a root that expires soon is a warning, an expired one an error, a missing or broken one too', () => {
  const of = (pem: string): string[] => bad({ roots: [rootMap('istio-system', pem), rootMap('shop', pem)] });
  assert.match(of(root(NOW + 10 * DAY)).join(), /^! root certificate: expires at 2026-06-11T/);
  assert.match(of(root(NOW - 1000)).join(), /^✘ root certificate: expired at 2026-05-31T/);
  assert.match(of('nonsense').join(), /^✘ root certificate: cannot be read: it has no certificate/);
  assert.match(bad({ roots: [] }).join(), /^✘ root certificate: ConfigMap istio-system\/istio-ca-root-cert is missing: no proxy can start/);
});

test('of two roots the one that expires first counts', () => {
  const both = `${YEARS}${root(NOW + 5 * DAY)}`;
  assert.match(
    bad({ roots: [rootMap('istio-system', both), rootMap('shop', both)] }).join(),
    /^! root certificate: expires at 2026-06-06T/,
  );
});

test('a namespace of the mesh without the root, and one with another root, are named', () => {
  assert.deepEqual(bad({ roots: [rootMap('istio-system', YEARS)] }), [
    '! root certificate: it is missing in shop: no waypoint starts there (look at istiod: it writes it)',
  ]);
  assert.deepEqual(bad({ roots: [rootMap('istio-system', YEARS), rootMap('shop', root(NOW + 900 * DAY))] }), [
    '! root certificate: it is another one in shop (look at istiod: it keeps them equal)',
  ]);
});

test('a proxy with an expired certificate is named', () => {
  const [proxy] = mesh().proxies;
  assert.ok(proxy);
  assert.deepEqual(bad({ mesh: mesh({ proxies: [{ ...proxy, soonestExpiry: (NOW - 1000) / 1000 }] }) }), [
    '✘ certificates: istio-system/ztunnel-1 holds an expired certificate (its log says why it could not renew)',
  ]);
});

test('pods that should be in the mesh and are not are named', () => {
  assert.deepEqual(bad({ mesh: mesh({ pods: [pod('orders', true), pod('late', false)] }) }), [
    '✘ pods: 1 of 2 pods not in the mesh: shop/late (meshctl status says why)',
  ]);
});

test('missing definitions are warnings with their mend', () => {
  const found = bad({ definitions: [] });
  assert.equal(found.length, 2);
  assert.match(found[0] ?? '', /^! definitions: missing: authorizationpolicies\.security\.istio\.io, .* \(meshctl upgrade brings them\)$/);
  assert.match(found[1] ?? '', /^! Gateway API: is missing: no waypoints \(kubectl apply /);
});

test('what could not be asked is said', () => {
  assert.deepEqual(bad({ mesh: mesh({ failures: ['istiod-1 did not answer /debug/syncz: 503'] }) }), [
    '! reading: istiod-1 did not answer /debug/syncz: 503 (what depends on it was not checked)',
  ]);
});
