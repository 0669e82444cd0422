import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../../common/base/clock.ts';
import { KubeApi, KubeApiError, type KubeObject, type WatchEvent } from '../../../common/client/kube-api.ts';
import { loadKubeCredentials } from '../../../common/client/kube-config.ts';
import { watchObjects } from '../../../common/client/kube-watch.ts';
import { FakeKubeApi } from '../../support/fake-kube-api.ts';
import { recordingLog } from '../../support/recording-log.ts';
import { until } from '../../support/until.ts';

const PODS = '/api/v1/pods';
const named = (name: string, namespace = 'shop') => ({ metadata: { name, namespace } });

function folder(t: { after(run: () => void): void }, files: Record<string, string>): string {
  const dir = mkdtempSync(join(tmpdir(), 'kube-'));
  t.after(() => rmSync(dir, { recursive: true }));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(dir, name), content);
  return dir;
}

test('a list is read page by page, and its items say what they are', async (t) => {
  const fake = await FakeKubeApi.start(t);
  for (let i = 0; i < 1203; i++) fake.put(PODS, named(`p${i}`));
  const items = await fake.client().list<KubeObject>(PODS);
  assert.equal(items.length, 1203);
  assert.equal(items[0]?.kind, 'Thing');
  assert.equal(fake.requests.length, 3);
});

test('what is created can be read, replaced, patched and deleted', async (t) => {
  const api = (await FakeKubeApi.start(t)).client();
  const path = '/api/v1/namespaces/shop/configmaps';
  const created = await api.create<KubeObject>(path, { metadata: { name: 'c' }, data: { a: '1' } });
  assert.equal(created.metadata.namespace, 'shop');
  const replaced = await api.replace<KubeObject>(`${path}/c`, { ...created, data: { a: '2' } });
  assert.deepEqual((await api.get<KubeObject>(`${path}/c`)).data, { a: '2' });
  await assert.rejects(
    api.replace(`${path}/c`, created),
    (error: unknown) => error instanceof KubeApiError && error.status === 409 && error.reason === 'Conflict',
  );
  assert.equal(replaced.metadata.uid, created.metadata.uid);
  await api.delete(`${path}/c`);
  await assert.rejects(api.get(`${path}/c`), (error: unknown) => error instanceof KubeApiError && error.status === 404);
});

test('server-side apply says whose fields they are', async (t) => {
  const fake = await FakeKubeApi.start(t);
  fake.put('/api/v1/services', named('web'));
  await fake
    .client()
    .patch(
      '/api/v1/namespaces/shop/services/web/status',
      { metadata: { name: 'web' }, status: {} },
      { type: 'apply', fieldManager: 'istio-ambient-service', force: true },
    );
  const [request] = fake.requests;
  assert.equal(request?.headers['content-type'], 'application/apply-patch+yaml');
  assert.equal(request?.query.get('fieldManager'), 'istio-ambient-service');
  assert.equal(request?.query.get('force'), 'true');
});

test("an error carries the server's status, reason and message, and names the request", async (t) => {
  const fake = await FakeKubeApi.start(t);
  fake.intercept = () => ({ status: 403, reason: 'Forbidden', message: 'pods is forbidden: User "x" cannot list' });
  await assert.rejects(fake.client().get('/api/v1/pods'), {
    name: 'KubeApiError',
    status: 403,
    reason: 'Forbidden',
    message: 'GET /api/v1/pods: 403 pods is forbidden: User "x" cannot list',
  });
});

test('a server that cannot be reached is named', async () => {
  const api = new KubeApi({ server: 'https://127.0.0.1:1', tls: {}, apply: async () => ({}) });
  await assert.rejects(api.get('/version'), /GET https:\/\/127\.0\.0\.1:1\/version: .*ECONNREFUSED/);
});

test('a watch gives events in order, ends with the server, and stops when it is aborted', async (t) => {
  const fake = await FakeKubeApi.start(t);
  const api = fake.client();
  const seen: string[] = [];
  const onEvent = ({ type, object }: WatchEvent<KubeObject>): void => void seen.push(`${type} ${object.metadata.name ?? ''}`);
  const first = api.watch<KubeObject>(PODS, { resourceVersion: '0' }, onEvent, AbortSignal.timeout(5000));
  await until(() => fake.watchers(PODS) === 1);
  fake.put(PODS, named('a'));
  fake.put(PODS, { ...named('a'), spec: { text: 'ü'.repeat(100_000) } });
  fake.remove(PODS, 'shop/a');
  fake.bookmark(PODS);
  await until(() => seen.length === 4);
  fake.endWatches(PODS);
  await first;
  assert.deepEqual(seen, ['ADDED a', 'MODIFIED a', 'DELETED a', 'BOOKMARK ']);
  const abort = new AbortController();
  const second = api.watch(PODS, { resourceVersion: '999' }, () => undefined, abort.signal);
  await until(() => fake.watchers(PODS) === 1);
  abort.abort(new Error('enough'));
  await assert.rejects(second, /enough/);
});

test('a watch from a forgotten version is a KubeApiError 410', async (t) => {
  const fake = await FakeKubeApi.start(t);
  fake.put(PODS, named('a'));
  fake.forget(PODS);
  await assert.rejects(
    fake.client().watch(PODS, { resourceVersion: '1' }, () => undefined, AbortSignal.timeout(5000)),
    { status: 410 },
  );
});

test('a cut connection does not stop watching: what happened meanwhile is told', async (t) => {
  const fake = await FakeKubeApi.start(t);
  fake.put(PODS, named('a'));
  fake.put(PODS, named('b'));
  const changes: string[] = [];
  const abort = new AbortController();
  t.after(() => abort.abort());
  watchObjects<KubeObject>(fake.client(), {
    path: PODS,
    clock: { ...systemClock, after: (ms, run) => systemClock.after(ms / 100, run) },
    random: () => 0.5,
    log: recordingLog(),
    signal: abort.signal,
    onChange: ({ type, object }) => void changes.push(`${type} ${object.metadata.name}`),
  });
  await until(() => fake.watchers(PODS) === 1);
  fake.cutWatches(PODS);
  await until(() => fake.watchers(PODS) === 0);
  fake.remove(PODS, 'shop/a');
  fake.forget(PODS);
  fake.put(PODS, named('c'));
  await until(() => changes.length === 4);
  assert.deepEqual(changes, ['added a', 'added b', 'deleted a', 'added c']);
});

test('in a pod, the service account is used and its token read anew', async (t) => {
  const fake = await FakeKubeApi.start(t);
  const dir = folder(t, { token: 'first\n', 'ca.crt': fake.ca });
  const { hostname, port } = new URL(fake.url);
  const env = { KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port, HOME: '/nowhere' };
  const api = KubeApi.load({ env, serviceAccountDir: dir });
  t.after(() => api.close());
  fake.put(PODS, named('a'));
  await api.list(PODS);
  writeFileSync(join(dir, 'token'), 'second\n');
  await api.list(PODS);
  assert.deepEqual(
    fake.requests.map(({ headers }) => headers.authorization),
    ['Bearer first', 'Bearer second'],
  );
});

test('a kubeconfig file gives server, trust and token; --context picks another', async (t) => {
  const fake = await FakeKubeApi.start(t);
  const config = (server: string) => ({
    'ca.pem': fake.ca,
    config: `apiVersion: v1
kind: Config
current-context: one
contexts:
- {name: one, context: {cluster: here, user: me}}
- {name: two, context: {cluster: here, user: you, namespace: shop}}
clusters:
- {name: here, cluster: {server: "${server}", certificate-authority: ca.pem}}
users:
- {name: me, user: {token: mine}}
- {name: you, user: {username: u, password: p}}
`,
  });
  const dir = folder(t, config(fake.url));
  fake.put(PODS, named('a'));
  for (const context of [undefined, 'two']) {
    const api = KubeApi.load({ env: {}, kubeconfig: join(dir, 'config'), ...(context && { context }) });
    t.after(() => api.close());
    await api.list(PODS);
  }
  assert.deepEqual(
    fake.requests.map(({ headers }) => headers.authorization),
    ['Bearer mine', 'Basic dTpw'],
  );
  const of = (context: string): string | undefined => loadKubeCredentials({ env: {}, kubeconfig: join(dir, 'config'), context }).namespace;
  assert.deepEqual([of('one'), of('two')], [undefined, 'shop'], 'a context may say which namespace is meant');
});

test('users that need a program to log in go through the Kubernetes client', async (t) => {
  const fake = await FakeKubeApi.start(t);
  const credential = JSON.stringify({
    apiVersion: 'client.authentication.k8s.io/v1',
    kind: 'ExecCredential',
    status: { token: 'from-program' },
  });
  const dir = folder(t, {
    'ca.pem': fake.ca,
    config: `current-context: one
contexts:
- {name: one, context: {cluster: here, user: me}}
clusters:
- {name: here, cluster: {server: "${fake.url}", certificate-authority: ca.pem}}
users:
- name: me
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: echo, args: ['${credential}'], interactiveMode: Never}
`,
  });
  fake.put(PODS, named('a'));
  const api = KubeApi.load({ env: {}, kubeconfig: join(dir, 'config') });
  t.after(() => api.close());
  await api.list(PODS);
  assert.equal(fake.requests[0]?.headers.authorization, 'Bearer from-program');
});

test('what is missing in a configuration is said', (t) => {
  const dir = folder(t, { empty: '{}', broken: 'a: [', wrong: 'current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n' });
  const load = (name: string) => KubeApi.load({ env: {}, kubeconfig: join(dir, name) });
  assert.throws(() => load('absent'), /cannot read kubeconfig .*absent: ENOENT/);
  assert.throws(() => load('empty'), /no current-context/);
  assert.throws(() => load('broken'), /cannot read kubeconfig .*broken/);
  assert.throws(() => load('wrong'), /context "x" names cluster "c", which has no server/);
  assert.throws(() => KubeApi.load({ env: {} }), /no Kubernetes configuration/);
});
