import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { VERSION } from '../../../common/base/version.ts';
import { kindOf, objectPath } from '../../../meshctl/install/kinds.ts';
import { loadSource } from '../../../meshctl/install/source.ts';

const plain = { namespace: 'istio-system', values: [], set: [], env: {} };

test('without values the manifest that travels with the program is installed, in this version', () => {
  const { objects, definitions, version } = loadSource(plain);
  assert.equal(version, VERSION);
  assert.equal(objects[0]?.kind, 'Namespace');
  assert.deepEqual(
    objects.slice(-4).map(({ kind }) => kind),
    ['Deployment', 'DaemonSet', 'DaemonSet', 'ValidatingWebhookConfiguration'],
  );
  assert.ok(definitions.some(({ metadata }) => metadata.name === 'authorizationpolicies.security.istio.io'));
});

test('every kind of the manifest has a place in the API', () => {
  for (const object of loadSource(plain).objects) assert.equal(kindOf(object).kind, object.kind);
  const role = loadSource(plain).objects.find(({ kind }) => kind === 'RoleBinding');
  assert.equal(role && objectPath(role), '/apis/rbac.authorization.k8s.io/v1/namespaces/istio-system/rolebindings/istio-cni');
});

test('values without Helm, and another namespace without Helm, say what is missing', () => {
  for (const options of [
    { ...plain, set: ['istiod.replicas=3'] },
    { ...plain, namespace: 'mesh' },
  ])
    assert.throws(() => loadSource({ ...options, env: { PATH: '/nonexistent' } }), /need helm on the PATH: install Helm 3\.14 or newer/);
});

test('what Helm says of bad values becomes one line', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warren-helm-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const complaint =
    "Error: values don't meet the specifications of the schema(s) in the following chart(s):\nwarren:\n- at '/istiod/replicas': got string, want integer\n- at '/cni': additional properties 'bindir' not allowed\n";
  writeFileSync(join(folder, 'helm'), `#!/bin/sh\ncat >&2 <<'END'\n${complaint}END\nexit 1\n`, { mode: 0o755 });
  assert.throws(
    () => loadSource({ ...plain, set: ['istiod.replicas=two'], env: { PATH: `${folder}:/usr/bin:/bin` } }),
    /^Error: helm refuses these values: at '\/istiod\/replicas': got string, want integer; at '\/cni': additional properties 'bindir' not allowed$/,
  );
});

test('what Helm renders gets the namespace that Helm leaves to its user', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warren-helm-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(
    join(folder, 'helm'),
    `#!/bin/sh\ncat <<'END'\napiVersion: v1\nkind: ServiceAccount\nmetadata: { name: istiod, namespace: mesh, labels: { app.kubernetes.io/version: "9.9.9" } }\nEND\n`,
    { mode: 0o755 },
  );
  const { objects, version } = loadSource({ ...plain, namespace: 'mesh', env: { PATH: `${folder}:/usr/bin:/bin` } });
  assert.deepEqual(
    objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`),
    ['Namespace mesh', 'ServiceAccount istiod'],
  );
  assert.equal(objects[0]?.metadata.labels?.['warren.dev/installation'], 'mesh');
  assert.equal(objects[0]?.metadata.labels?.['pod-security.kubernetes.io/enforce'], 'privileged');
  assert.equal(version, '9.9.9');
});
