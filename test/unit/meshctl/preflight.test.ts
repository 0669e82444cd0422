import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../../common/client/kube-api.ts';
import type { Finding } from '../../../meshctl/check/finding.ts';
import { findingLine, findingsData } from '../../../meshctl/check/finding.ts';
import { type PreflightFacts, preflight } from '../../../meshctl/check/preflight.ts';
import { loadSource } from '../../../meshctl/install/source.ts';

const { objects } = loadSource({ namespace: 'istio-system', values: [], set: [], env: {} });

const crd = (name: string, versions: readonly string[] = ['v1'], metadata: object = {}): KubeObject => ({
  metadata: { name, ...metadata },
  spec: { versions: versions.map((version) => ({ name: version, served: true })) },
});

const node = (name: string, nodeInfo: object = {}, labels: Record<string, string> = {}): KubeObject => ({
  metadata: { name, labels },
  status: { nodeInfo: { osImage: 'Debian GNU/Linux 12 (bookworm)', kubeletVersion: 'v1.34.1', architecture: 'amd64', ...nodeInfo } },
});

const facts = (changed: Partial<PreflightFacts> = {}): PreflightFacts => ({
  namespace: 'istio-system',
  server: { major: '1', minor: '34', gitVersion: 'v1.34.1' },
  denied: [],
  namespaceObject: undefined,
  definitions: ['gatewayclasses', 'gateways', 'httproutes'].map((plural) => crd(`${plural}.gateway.networking.k8s.io`)),
  meshes: [],
  webhooks: [],
  nodes: [node('node1')],
  daemonSets: [],
  pods: [],
  networkPolicies: [],
  unread: [],
  objects,
  ...changed,
});

const bad = (changed: Partial<PreflightFacts>): Finding[] => preflight(facts(changed)).filter(({ severity }) => severity !== 'ok');
const lines = (changed: Partial<PreflightFacts>): string[] => bad(changed).map((finding) => findingLine(finding, false));

/** The node agent's DaemonSet with other fields in its pod template. */
const agentWith = (
  change: (spec: { volumes: { name: string; hostPath: { path: string } }[]; containers: { securityContext: object }[] }) => void,
): KubeObject[] =>
  objects.map((object) => {
    if (object.kind !== 'DaemonSet' || object.metadata.name !== 'istio-cni-node') return object;
    const copy = structuredClone(object) as KubeObject & { spec: { template: { spec: Parameters<typeof change>[0] } } };
    change(copy.spec.template.spec);
    return copy;
  });

test('NetworkPolicies that the mesh would change are named once each, with the pods they select and the mend', () => {
  const pod = (namespace: string, name: string, spec: object = {}): KubeObject => ({
    metadata: { namespace, name, labels: { app: 'web' } },
    spec,
    status: { phase: 'Running', podIPs: [{ ip: '10.0.0.1' }] },
  });
  const policy = (namespace: string, name: string, spec: object): KubeObject => ({ metadata: { namespace, name }, spec });
  const narrow = { podSelector: {}, ingress: [{ ports: [{ port: 8080 }] }] };
  const outside = {
    ...pod('shop', 'ztunnel'),
    metadata: { namespace: 'shop', name: 'ztunnel', labels: { 'istio.io/dataplane-mode': 'none' } },
  };
  const pods = [pod('shop', 'a'), pod('shop', 'b'), pod('shop', 'host', { hostNetwork: true }), pod('kube-system', 'dns'), outside];
  const networkPolicies = [policy('shop', 'web', narrow), policy('kube-system', 'dns', narrow), policy('empty', 'web', narrow)];
  assert.deepEqual(lines({ pods, networkPolicies }), [
    '! NetworkPolicies: NetworkPolicy shop/web lets everybody in on port 8080 only; callers of the mesh come by port 15008 and are shut out (2 pods) (add {protocol: TCP, port: 15008} to the ports of that rule)',
  ]);
  const open = [policy('shop', 'web', { podSelector: {}, ingress: [{}] })];
  assert.deepEqual(lines({ pods, networkPolicies: open }), []);
});

test('a sound cluster has nothing to mend, and says what was looked at', () => {
  const findings = preflight(facts());
  assert.deepEqual(
    findings.filter(({ severity }) => severity !== 'ok'),
    [],
  );
  assert.deepEqual(
    findings.map(({ check }) => check),
    ['version', 'permissions', 'Gateway API', "Istio's kinds", 'other meshes', 'CNI folders', 'SELinux'],
  );
});

test('versions of providers are read by their number', () => {
  assert.deepEqual(lines({ server: { major: '1', minor: '31+', gitVersion: 'v1.31.5-gke.100' } }), []);
  assert.deepEqual(lines({ server: { major: '1', minor: '29', gitVersion: 'v1.29.0' } }), [
    '✘ version: Kubernetes v1.29.0 is older than 1.31 (upgrade the cluster)',
  ]);
  assert.deepEqual(lines({ server: { major: '', minor: '', gitVersion: '' } }), [
    '✘ version: Kubernetes of no version is older than 1.31 (upgrade the cluster)',
  ]);
});

test('nodes with an older kubelet are named', () => {
  const nodes = ['a', 'b', 'c', 'd'].map((name) => node(name, { kubeletVersion: 'v1.29.3' }));
  assert.deepEqual(lines({ nodes }), ['! version: the kubelet is older than 1.31 on a, b, c and 1 more (upgrade these nodes)']);
});

test('missing rights are named, the first few of many', () => {
  const denied = ['get', 'create', 'patch', 'delete', 'list'].map((verb) => ({ verb, resource: 'deployments', namespace: 'istio-system' }));
  assert.deepEqual(lines({ denied }), [
    '✘ permissions: you may not get deployments in istio-system, create deployments in istio-system, patch deployments in istio-system, delete deployments in istio-system and 1 more (use an account that is bound to cluster-admin (--context NAME))',
  ]);
});

test('a cluster without the Gateway API hears how to install it; the mesh is not refused', () => {
  const [finding, ...more] = bad({ definitions: [] });
  assert.deepEqual(more, []);
  assert.equal(finding?.severity, 'warning');
  assert.equal(finding?.message, 'its definitions are missing: no waypoints');
  assert.match(finding?.mend ?? '', /^kubectl apply --server-side -f https:\/\/github\.com\/kubernetes-sigs\/gateway-api\/releases/);
});

test('a Gateway API that is too old is told from one that is missing', () => {
  const annotations = { 'gateway.networking.k8s.io/bundle-version': 'v0.8.1' };
  const definitions = ['gatewayclasses', 'gateways', 'httproutes'].map((plural) =>
    crd(`${plural}.gateway.networking.k8s.io`, ['v1beta1'], { annotations }),
  );
  assert.match(
    lines({ definitions })[0] ?? '',
    /^! Gateway API: v0\.8\.1 does not serve v1 of gatewayclasses, gateways, httproutes: no waypoints/,
  );
});

test("Istio's own definitions are told from ours", () => {
  const message = (definitions: readonly KubeObject[]): string | undefined =>
    preflight(facts({ definitions: [...facts().definitions, ...definitions] })).find(({ check }) => check === "Istio's kinds")?.message;
  assert.equal(message([crd('virtualservices.networking.istio.io')]), "1 definition of Istio's own, which stay as they are");
  assert.equal(
    message([crd('virtualservices.networking.istio.io', ['v1'], { labels: { 'warren.dev/definition': 'istio' } })]),
    'defined by Warren',
  );
  assert.equal(message([]), 'not defined yet: Warren brings small definitions');
});

test('a foreign piece is an error only where ours would stand beside it', () => {
  const theirs: KubeObject = { kind: 'DaemonSet', metadata: { name: 'ztunnel', namespace: 'kube-system', labels: { app: 'ztunnel' } } };
  assert.match(
    lines({ meshes: [theirs] })[0] ?? '',
    /^✘ other meshes: Istio's ztunnel is installed already \(DaemonSet kube-system\/ztunnel\) \(.*--set ztunnel\.enabled=false\)$/,
  );
  const without = objects.filter(({ metadata }) => metadata.labels?.app !== 'ztunnel');
  assert.deepEqual(lines({ meshes: [theirs], objects: without }), []);
});

test('an installation of ours in another namespace is named', () => {
  const other: KubeObject = {
    kind: 'Deployment',
    metadata: { name: 'istiod', namespace: 'mesh', labels: { app: 'istiod', 'warren.dev/installation': 'mesh' } },
  };
  assert.deepEqual(lines({ meshes: [other] }), [
    '✘ other meshes: Warren is installed in namespace mesh already (Deployment mesh/istiod in mesh) (-i mesh)',
  ]);
});

test('a sidecar injector is a warning: its pods are not enrolled', () => {
  const found = lines({ webhooks: [{ metadata: { name: 'istio-sidecar-injector' } }] });
  assert.match(found[0] ?? '', /^! other meshes: Istio's sidecar injector is there/);
});

test('a namespace that is on its way out is named: nothing can be made in it', () => {
  const namespaceObject: KubeObject = { metadata: { name: 'istio-system', deletionTimestamp: '2026-01-01T00:00:00Z' } };
  assert.deepEqual(lines({ namespaceObject }), [
    '✘ namespace: istio-system is being deleted (wait until it is gone: kubectl wait --for=delete namespace/istio-system)',
  ]);
});

test('a namespace whose pod security would refuse the node’s pieces is named, with the label', () => {
  const namespaceObject: KubeObject = { metadata: { name: 'istio-system', labels: { 'pod-security.kubernetes.io/enforce': 'baseline' } } };
  const rendered = objects.filter(({ kind }) => kind !== 'Namespace');
  assert.deepEqual(lines({ namespaceObject, objects: rendered }), [
    '✘ pod security: namespace istio-system enforces baseline, which refuses ztunnel and the node agent (kubectl label namespace istio-system pod-security.kubernetes.io/enforce=privileged --overwrite)',
  ]);
  // The manifest's own Namespace says privileged; whether that may be is the rehearsal's matter.
  assert.deepEqual(lines({ namespaceObject }), []);
});

for (const [platform, info, labels, mend] of [
  [
    'k3s',
    { kubeletVersion: 'v1.33.1+k3s1' },
    {},
    '--set cni.binDir=/var/lib/rancher/k3s/data/cni --set cni.confDir=/var/lib/rancher/k3s/agent/etc/cni/net.d, or the values of platforms/k3s.yaml',
  ],
  [
    'GKE',
    { kubeletVersion: 'v1.33.1-gke.1' },
    {},
    '--set cni.binDir=/home/kubernetes/bin --set cni.confDir=/etc/cni/net.d, or the values of platforms/gke.yaml',
  ],
  [
    'OpenShift',
    {},
    { 'node.openshift.io/os_id': 'rhel' },
    '--set cni.binDir=/var/lib/cni/bin --set cni.confDir=/etc/cni/multus/net.d, or the values of platforms/openshift.yaml',
  ],
] as const) {
  test(`on ${platform} the usual CNI folders are refused, with those that it has`, () => {
    const nodes = [node('node1', info, labels)];
    const [finding, ...more] = bad({ nodes });
    assert.deepEqual(more, []);
    assert.equal(finding?.check, 'CNI folders');
    assert.equal(finding?.severity, 'error');
    assert.equal(finding?.mend, mend);
    const [binDir = '', confDir = ''] = [...mend.matchAll(/Dir=([^\s,]+)/g)].map(([, path = '']) => path);
    const right = agentWith(({ volumes }) => {
      for (const volume of volumes) {
        if (volume.name === 'cni-bin-dir') volume.hostPath.path = binDir;
        if (volume.name === 'cni-net-dir') volume.hostPath.path = confDir;
      }
    });
    assert.deepEqual(lines({ nodes, objects: right }), []);
  });
}

test('the network’s own DaemonSet shows that CNI files are elsewhere', () => {
  const daemonSets: KubeObject[] = [
    {
      kind: 'DaemonSet',
      metadata: { name: 'calico-node', namespace: 'kube-system' },
      spec: {
        template: {
          spec: {
            volumes: [
              { name: 'cni-bin-dir', hostPath: { path: '/var/snap/microk8s/current/opt/cni/bin/' } },
              { name: 'cni-net-dir', hostPath: { path: '/etc/cni/net.d' } },
              { name: 'modules', hostPath: { path: '/lib/modules' } },
            ],
          },
        },
      },
    },
  ];
  assert.deepEqual(lines({ daemonSets }), [
    '! CNI folders: the network of this cluster (DaemonSet kube-system/calico-node) has its CNI files in other folders than ours (--set cni.binDir=/var/snap/microk8s/current/opt/cni/bin)',
  ]);
});

test('nodes that come with SELinux enforcing are named, unless the options are set', () => {
  const nodes = [node('worker', { osImage: 'Fedora Linux 42 (Cloud Edition)' })];
  assert.deepEqual(lines({ nodes }), [
    "! SELinux: Fedora Linux 42 (Cloud Edition) on worker comes with SELinux enforcing, which keeps the node agent from pods' network namespaces (--set seLinuxOptions.type=spc_t)",
  ]);
  const set = agentWith(({ containers }) => {
    for (const container of containers) container.securityContext = { ...container.securityContext, seLinuxOptions: { type: 'spc_t' } };
  });
  assert.deepEqual(lines({ nodes, objects: set }), []);
  assert.match(lines({ nodes: [node('b', { osImage: 'Bottlerocket OS 1.20' })] })[0] ?? '', /seLinuxOptions\.type=super_t/);
});

test('nodes that there are no images for are named', () => {
  assert.match(lines({ nodes: [node('p', { architecture: 'ppc64le' })] })[0] ?? '', /^! nodes: there are no images for ppc64le \(p\)/);
});

test('what may not be read is said, and is no reason to stop', () => {
  assert.deepEqual(lines({ unread: ['nodes may not be read: forbidden'] }), [
    '! reading: nodes may not be read: forbidden (what depends on it was not checked)',
  ]);
});

test('findings for machines say whether all is well', () => {
  assert.equal(findingsData(preflight(facts())).ok, true);
  assert.equal(findingsData(preflight(facts({ server: { major: '1', minor: '20', gitVersion: '' } }))).ok, false);
});

test('a finding is one line, however long its message was', () => {
  assert.equal(findingLine({ check: 'x', severity: 'error', message: 'a\n  b\tc', mend: 'do\nthis' }, false), '✘ x: a b c (do this)');
});
