import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { cniSettings } from '../../../cni/settings.ts';
import { allKinds, watchedKinds } from '../../../istiod-lite/model/watched-kinds.ts';
import { settingsTable as istiodSettings } from '../../../istiod-lite/settings.ts';
import { builtInTypes } from '../../../playground/apiserver/built-in-types.ts';
import type { KubeObject } from '../../../playground/apiserver/object.ts';
import { loadDefinitions } from '../../../playground/apiserver/schemas/definitions.ts';
import { MANIFEST_FILE } from '../../../scripts/manifest.ts';
import { settingsTable as ztunnelSettings } from '../../../ztunnel/settings.ts';
import { manifest, nameOf, refusals, root } from '../../support/manifests.ts';

const objects = manifest(MANIFEST_FILE);
const istioDefinitions = manifest('manifests/charts/warren/crds/istio.yaml');
const definitions = [...istioDefinitions, ...manifest('manifests/charts/warren/crds/warren.yaml')];

interface Container {
  readonly name: string;
  readonly image: string;
  readonly args?: readonly string[];
  readonly command?: readonly string[];
  readonly env?: readonly { readonly name: string }[];
  readonly securityContext: { readonly [field: string]: unknown; readonly capabilities: { drop: string[]; add?: string[] } };
  readonly resources: { requests: Record<string, string>; limits: Record<string, string> };
  readonly readinessProbe?: object;
}
interface PodTemplate {
  readonly metadata: { labels: Record<string, string>; annotations: Record<string, string> };
  readonly spec: { priorityClassName: string; securityContext: { seccompProfile?: object }; containers: Container[] };
}
const workloads = objects
  .filter(({ kind }) => kind === 'Deployment' || kind === 'DaemonSet')
  .map((each) => ({ name: nameOf(each), template: (each.spec as { template: PodTemplate }).template }));

test('the API server takes every object of the plain manifest and every definition, unknown fields refused', () => {
  assert.deepEqual(refusals([...objects, ...definitions]), []);
});

test('every reader of YAML reads the same numbers, and what is applied twice by two managers is the same', () => {
  const text = readFileSync(join(root, MANIFEST_FILE), 'utf8');
  // Go's reader takes 0440 for octal, others for 440.
  assert.doesNotMatch(text, /: 0\d+\s/);
  // Kubernetes fills in the version, and compares a reference as a whole: without it two managers would be in conflict.
  assert.equal(text.match(/fieldRef:\n/g)?.length, text.match(/fieldRef:\n +apiVersion: v1\n +fieldPath:/g)?.length);
});

test('every object can be found by the label of its installation', () => {
  const without = objects.filter(
    ({ kind, metadata }) => kind !== 'Namespace' && metadata.labels?.['warren.dev/installation'] !== 'istio-system',
  );
  assert.deepEqual(without.map(nameOf), []);
});

test('ztunnel and the node agent are two DaemonSets, istiod a Deployment of two replicas with a disruption budget', () => {
  assert.deepEqual(workloads.map(({ name }) => name).sort(), [
    'DaemonSet/istio-system/istio-cni-node',
    'DaemonSet/istio-system/ztunnel',
    'Deployment/istio-system/istiod',
  ]);
  const istiod = objects.find(({ kind }) => kind === 'Deployment')?.spec as { replicas: number };
  assert.equal(istiod.replicas, 2);
  assert.ok(objects.some((each) => nameOf(each) === 'PodDisruptionBudget/istio-system/istiod'));
});

for (const { name, template } of workloads) {
  test(`${name}: every container drops all capabilities, has a read-only root, requests, a memory limit and a readiness probe`, () => {
    for (const { securityContext, resources, readinessProbe, command } of template.spec.containers) {
      assert.deepEqual(securityContext.capabilities.drop, ['ALL']);
      assert.equal(securityContext.privileged, false);
      assert.equal(securityContext.readOnlyRootFilesystem, true);
      assert.ok(resources.requests.cpu && resources.requests.memory && resources.limits.memory);
      assert.ok(readinessProbe);
      // The image's own entry point runs, in clusters as in the playground.
      assert.equal(command, undefined);
    }
    assert.deepEqual(template.spec.securityContext.seccompProfile, { type: 'RuntimeDefault' });
    assert.match(template.spec.priorityClassName, /^system-(node|cluster)-critical$/);
    assert.equal(template.metadata.annotations['prometheus.io/scrape'], 'true');
    assert.equal(template.metadata.labels['istio.io/dataplane-mode'], 'none');
    if (template.metadata.labels.app === 'istiod')
      assert.equal(template.metadata.labels['istio.io/rev'], 'default', 'istioctl asks the pods of a revision');
  });
}

test('istiod runs as nobody in particular; only the node’s two pieces are root', () => {
  const istiod = workloads.find(({ name }) => name.startsWith('Deployment'))?.template.spec;
  assert.deepEqual(istiod && { ...istiod.securityContext, add: istiod.containers[0]?.securityContext.capabilities.add }, {
    runAsNonRoot: true,
    runAsUser: 1337,
    runAsGroup: 1337,
    fsGroup: 1337,
    seccompProfile: { type: 'RuntimeDefault' },
    add: undefined,
  });
});

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
}
const rulesOf = (name: string): readonly Rule[] => (objects.find((each) => nameOf(each) === name)?.rules ?? []) as readonly Rule[];
const roles = objects.filter(({ kind }) => kind === 'ClusterRole' || kind === 'Role');

test('no role has a wildcard, and none reads Secrets of the cluster', () => {
  for (const role of roles) {
    for (const { apiGroups, resources, verbs, resourceNames } of role.rules as unknown as Rule[]) {
      assert.ok(![...apiGroups, ...resources, ...verbs].includes('*'), nameOf(role));
      if (!resources.includes('secrets')) continue;
      assert.equal(role.kind, 'Role');
      assert.ok(resourceNames !== undefined || verbs.join() === 'create', nameOf(role));
    }
  }
});

test('istiod may read every kind that it watches', () => {
  const rules = rulesOf('ClusterRole/istiod-clusterrole-istio-system');
  const missing = Object.values(watchedKinds).filter(({ apiVersion, path }) => {
    const group = apiVersion.includes('/') ? (apiVersion.split('/')[0] ?? '') : '';
    const resource = path.slice(path.lastIndexOf('/') + 1);
    return !rules.some(
      ({ apiGroups, resources, verbs }) =>
        apiGroups.includes(group) && resources.includes(resource) && verbs.includes('list') && verbs.includes('watch'),
    );
  });
  assert.deepEqual(missing, []);
});

interface Webhook {
  readonly name: string;
  readonly clientConfig: { readonly caBundle?: string; readonly service: { readonly port: number } };
  readonly rules: readonly {
    readonly apiGroups: readonly string[];
    readonly resources: readonly string[];
    readonly operations: readonly string[];
  }[];
  readonly timeoutSeconds: number;
  readonly failurePolicy: string;
  readonly sideEffects: string;
  readonly objectSelector: object;
}

test('the API server asks about every kind of the mesh within two seconds, of this revision or of none, and holds up nothing of Kubernetes itself', () => {
  const configurations = objects.filter(({ kind }) => kind === 'ValidatingWebhookConfiguration');
  assert.deepEqual(configurations.map(nameOf), ['ValidatingWebhookConfiguration/istio-validator-istio-system']);
  const webhooks = (configurations[0]?.webhooks ?? []) as readonly Webhook[];
  const own = webhooks.filter(({ name }) => name.endsWith('validation.istio.io'));
  assert.equal(own.length, 2);
  for (const { rules, clientConfig, timeoutSeconds, sideEffects } of own) {
    const asked = rules.flatMap(({ apiGroups, resources }) => resources.map((resource) => `${resource}.${apiGroups[0]}`));
    const unasked = Object.values(watchedKinds)
      .filter(({ apiVersion }) => /istio\.io|gateway|warren/.test(apiVersion))
      .map(({ path, apiVersion }) => `${path.slice(path.lastIndexOf('/') + 1)}.${apiVersion.split('/')[0]}`)
      .filter((id) => !asked.includes(id));
    assert.deepEqual(unasked, []);
    assert.ok(rules.every(({ operations }) => operations.join() === 'CREATE,UPDATE'));
    // istiod writes it, and an upgrade must not take it out.
    assert.equal(clientConfig.caBundle, undefined);
    assert.deepEqual([timeoutSeconds, sideEffects, clientConfig.service.port], [2, 'None', 443]);
  }
  const [revision, none] = own.map(({ objectSelector }) => objectSelector);
  assert.deepEqual(revision, { matchExpressions: [{ key: 'istio.io/rev', operator: 'In', values: ['default'] }] });
  assert.deepEqual(none, { matchExpressions: [{ key: 'istio.io/rev', operator: 'DoesNotExist' }] });
  const advice = webhooks.filter((webhook) => !own.includes(webhook));
  assert.ok(advice.length > 0 && advice.every(({ failurePolicy, timeoutSeconds }) => failurePolicy === 'Ignore' && timeoutSeconds === 1));
});

test('istiod may change one configuration of webhooks, and make none', () => {
  const found = rulesOf('ClusterRole/istiod-clusterrole-istio-system').filter(({ apiGroups }) =>
    apiGroups.includes('admissionregistration.k8s.io'),
  );
  assert.deepEqual(found, [
    {
      apiGroups: ['admissionregistration.k8s.io'],
      resources: ['validatingwebhookconfigurations'],
      resourceNames: ['istio-validator-istio-system'],
      verbs: ['get', 'list', 'watch', 'patch'],
    },
  ]);
});

test('ztunnel has no role, and no token of the API server', () => {
  const account = objects.find((each) => nameOf(each) === 'ServiceAccount/istio-system/ztunnel');
  assert.equal(account?.automountServiceAccountToken, false);
  const bound = objects
    .filter(({ kind }) => kind === 'RoleBinding' || kind === 'ClusterRoleBinding')
    .flatMap(({ subjects }) => (subjects as { name: string }[]).map(({ name }) => name));
  assert.ok(!bound.includes('ztunnel'));
});

interface DefinitionSpec {
  readonly group: string;
  readonly names: { readonly kind: string; readonly plural: string; readonly shortNames: readonly string[] };
  readonly versions: readonly {
    readonly name: string;
    readonly storage: boolean;
    readonly subresources: { status?: object };
    readonly additionalPrinterColumns: readonly { name: string; jsonPath: string }[];
    readonly schema: { openAPIV3Schema: { properties: Record<string, Record<string, unknown>> } };
  }[];
}

test('our definitions of Istio’s kinds have the names, versions, short names and columns of Istio’s own, and leave fields open', () => {
  const known = new Map(builtInTypes(loadDefinitions()).map((type) => [`${type.plural}.${type.group}`, type]));
  for (const each of istioDefinitions as (KubeObject & { spec: DefinitionSpec })[]) {
    const type = known.get(each.metadata.name);
    assert.ok(type, each.metadata.name);
    const { names, versions } = each.spec;
    assert.deepEqual([names.kind, names.plural, names.shortNames], [type.kind, type.plural, [...type.shortNames]]);
    assert.deepEqual(
      versions.map(({ name }) => name),
      type.versions.map(({ name }) => name),
    );
    assert.deepEqual(
      versions.filter(({ storage }) => storage).map(({ name }) => name),
      [type.storageVersion],
    );
    for (const { subresources, additionalPrinterColumns, schema } of versions) {
      assert.ok(subresources.status);
      assert.deepEqual(
        new Set(additionalPrinterColumns.map(({ name }) => name)),
        new Set(type.versions[0]?.columns?.map(({ name }) => name)),
      );
      for (const part of ['spec', 'status'])
        assert.equal(schema.openAPIV3Schema.properties[part]?.['x-kubernetes-preserve-unknown-fields'], true);
    }
  }
});

test('there is a definition for each of Istio’s kinds that istiod watches', () => {
  const names = definitions.map(({ metadata }) => metadata.name);
  const missing = Object.values(watchedKinds)
    .filter(({ apiVersion }) => apiVersion.includes('.istio.io/'))
    .map(({ apiVersion, path }) => `${path.slice(path.lastIndexOf('/') + 1)}.${apiVersion.split('/')[0]}`)
    .filter((name) => !names.includes(name));
  assert.deepEqual(missing, []);
});

test('every variable that the manifest sets is a setting of its component', () => {
  const known: Readonly<Record<string, ReadonlySet<string>>> = {
    discovery: new Set(Object.values(istiodSettings).map(({ env }) => env)),
    'istio-proxy': new Set(Object.values(ztunnelSettings).map(({ env }) => env)),
    'install-cni': new Set(Object.values(cniSettings).map(({ env }) => env)),
  };
  for (const { template } of workloads) {
    for (const { name, env = [] } of template.spec.containers) {
      const strange = env.filter((each) => !known[name]?.has(each.name) && !/^ISTIO_META_/.test(each.name));
      assert.deepEqual(strange, [], name);
    }
  }
  const settings = objects.find((each) => nameOf(each) === 'ConfigMap/istio-system/istio-cni-config');
  assert.deepEqual(
    Object.keys(settings?.data ?? {}).filter((name) => !known['install-cni']?.has(name)),
    [],
  );
});

test('the API server asks istiod about every kind of configuration that analysis judges', () => {
  const webhook = objects.find(({ kind }) => kind === 'ValidatingWebhookConfiguration');
  const hooks = (webhook as { webhooks?: { rules: { apiGroups: string[]; resources: string[]; operations: string[] }[] }[] } | undefined)
    ?.webhooks;
  const asked = new Set(
    (hooks ?? []).flatMap(({ rules }) =>
      rules.flatMap(({ apiGroups, resources, operations }) =>
        operations.join() === 'CREATE,UPDATE' ? resources.map((resource) => `${apiGroups[0]} ${resource}`) : [],
      ),
    ),
  );
  // What kubelets and controllers write, and ConfigMaps, as a webhook cannot be asked about one name alone: analysis and the log say what is wrong.
  const notAsked = new Set(['Node', 'Pod', 'ConfigMap', 'EndpointSlice']);
  const expected = Object.values(allKinds)
    .filter(({ kind }) => !notAsked.has(kind))
    .map(({ apiVersion, path }) => `${apiVersion.includes('/') ? apiVersion.split('/')[0] : ''} ${path.slice(path.lastIndexOf('/') + 1)}`);
  assert.deepEqual(
    [...expected, 'gateway.networking.k8s.io referencegrants'].filter((each) => !asked.has(each)),
    [],
  );
});
