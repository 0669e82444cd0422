/** `@kubernetes/client-node`, which istiod-lite, the node agent and meshctl are built on, against the playground's API server. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { connect } from 'node:tls';
import * as k8s from '@kubernetes/client-node';
import { startKubectl } from '../support/kubectl.ts';

const options = { timeout: 60_000 };
const namespace = 'default';

test('typed and untyped clients create, list, patch and delete', options, async (t) => {
  const { api, url } = await startKubectl(t);
  const config = new k8s.KubeConfig();
  config.loadFromString(api.kubeconfig(url));
  const core = config.makeApiClient(k8s.CoreV1Api);
  await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'm' }, data: { a: '1' } } });
  const { items, metadata } = await core.listNamespacedConfigMap({ namespace, limit: 1 });
  assert.equal(items[0]?.metadata?.name, 'kube-root-ca.crt');
  const rest = await core.listNamespacedConfigMap({ namespace, limit: 1, _continue: metadata?._continue ?? '' });
  assert.deepEqual([rest.items[0]?.metadata?.name, rest.metadata?._continue], ['m', undefined]);
  await assert.rejects(
    core.readNamespacedConfigMap({ namespace, name: 'no' }),
    (error: unknown) => error instanceof k8s.ApiException && error.code === 404,
  );

  const objects = k8s.KubernetesObjectApi.makeApiClient(config);
  const policy = {
    apiVersion: 'security.istio.io/v1',
    kind: 'PeerAuthentication',
    metadata: { name: 'p', namespace },
    spec: { mtls: { mode: 'STRICT' } },
  };
  await objects.create(policy);
  await objects.patch(
    { ...policy, spec: { mtls: { mode: 'PERMISSIVE' } } },
    undefined,
    undefined,
    'tester',
    true,
    k8s.PatchStrategy.ServerSideApply,
  );
  assert.deepEqual(api.store.get('PeerAuthentication', 'p', namespace)?.spec, { mtls: { mode: 'PERMISSIVE' } });
  await objects.delete(policy);
  assert.equal(api.store.get('PeerAuthentication', 'p', namespace), undefined);

  const lease = config.makeApiClient(k8s.CoordinationV1Api);
  const body = { metadata: { name: 'l' }, spec: { holderIdentity: 'me', renewTime: new k8s.V1MicroTime() } };
  const made = await lease.createNamespacedLease({ namespace, body });
  await lease.replaceNamespacedLease({ namespace, name: 'l', body: { ...made, spec: { ...made.spec, holderIdentity: 'you' } } });
  await assert.rejects(
    lease.replaceNamespacedLease({ namespace, name: 'l', body: made }),
    (error: unknown) => error instanceof k8s.ApiException && error.code === 409,
  );
});

test('a watch goes on from a version, and an informer keeps up', options, async (t) => {
  const { api, url } = await startKubectl(t);
  const config = new k8s.KubeConfig();
  config.loadFromString(api.kubeconfig(url));
  const core = config.makeApiClient(k8s.CoreV1Api);
  const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, () =>
    core.listNamespacedConfigMap({ namespace }),
  );
  const seen: string[] = [];
  const waited = new Promise<void>((resolve) => {
    for (const event of ['add', 'update', 'delete'] as const) {
      informer.on(event, (object) => {
        seen.push(`${event} ${object.metadata?.name}`);
        if (event === 'delete') resolve();
      });
    }
  });
  await informer.start();
  api.store.create({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'm', namespace } });
  api.store.patch('ConfigMap', 'm', namespace, { type: 'merge', body: { data: { a: '1' } } });
  api.store.delete('ConfigMap', 'm', namespace);
  await waited;
  await informer.stop();
  assert.deepEqual(seen, ['add kube-root-ca.crt', 'add m', 'update m', 'delete m']);
});

test('exec, logs and port-forward of the library work', options, async (t) => {
  const { api, url } = await startKubectl(t);
  const config = new k8s.KubeConfig();
  config.loadFromString(api.kubeconfig(url));
  api.store.create({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', namespace },
    spec: { nodeName: 'n1', containers: [{ name: 'app', image: 'x' }] },
  });
  const stdout = new PassThrough();
  const status = new Promise<k8s.V1Status>((resolve, reject) => {
    new k8s.Exec(config).exec(namespace, 'p', 'app', ['sh', '-c', 'echo hi; exit 4'], stdout, null, null, false, resolve).catch(reject);
  });
  assert.equal((await status).details?.causes?.[0]?.message, '4');
  assert.equal(String(stdout.read()), 'hi\n');

  const log = new PassThrough();
  await new k8s.Log(config).log(namespace, 'p', 'app', log, { tailLines: 1 });
  const [line] = await once(log, 'data');
  assert.equal(String(line), 'line 2 of p/app\n');

  const echo = createServer((socket: Socket) => socket.pipe(socket));
  await new Promise<void>((resolve) => echo.listen(0, '127.0.0.1', resolve));
  t.after(() => echo.close());
  const address = echo.address();
  assert.ok(typeof address === 'object' && address);
  const output = new PassThrough();
  const input = new PassThrough();
  const forward = await new k8s.PortForward(config).portForward(namespace, 'p', [address.port], output, null, input);
  input.write('ping');
  const [answer] = await once(output, 'data');
  assert.equal(String(answer), 'ping');
  if ('close' in forward) forward.close();
});

test('requests that make no sense are answered, and nothing else is disturbed', options, async (t) => {
  const { api, url } = await startKubectl(t);
  const { port } = new URL(url);
  const token = api.issueToken({ namespace, serviceAccount: 'default' });
  const answer = async (head: string, body = ''): Promise<string> => {
    const socket = connect({ host: '127.0.0.1', port: Number(port), ca: api.caPem });
    socket.end(
      `${head} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    return String(await socket.setEncoding('utf8').reduce((all, chunk) => `${all}${chunk}`, '')).split('\r\n')[0] ?? '';
  };
  assert.equal(await answer('GET //'), 'HTTP/1.1 404 Not Found');
  assert.equal(await answer('GET /api/v1/pods?labelSelector=a%20b%20c'), 'HTTP/1.1 400 Bad Request');
  assert.equal(await answer('GET /api/v1/pods?watch=1&resourceVersion=old'), 'HTTP/1.1 400 Bad Request');
  assert.equal(await answer('GET /api/v1/pods?limit=x'), 'HTTP/1.1 400 Bad Request');
  assert.equal(await answer('GET /api/v1/pods?continue=x'), 'HTTP/1.1 400 Bad Request');
  assert.equal(await answer('GET /api/v1/namespaces/%zz/pods/%'), 'HTTP/1.1 404 Not Found');
  assert.equal(await answer('GET /apis/nowhere/v1/things'), 'HTTP/1.1 404 Not Found');
  assert.equal(await answer('POST /api/v1/namespaces', '{"kind":'), 'HTTP/1.1 400 Bad Request');
  assert.equal(await answer('POST /api/v1/namespaces', '[1]'), 'HTTP/1.1 400 Bad Request');
  assert.equal(await answer('POST /api/v1/namespaces', 'null'), 'HTTP/1.1 400 Bad Request');
  assert.equal(await answer('PUT /api/v1/namespaces/default', '{"metadata":{"name":"other"}}'), 'HTTP/1.1 400 Bad Request');
  assert.equal(await answer('PATCH /api/v1/namespaces/default', '{}'), 'HTTP/1.1 415 Unsupported Media Type');
  assert.equal(await answer('BREW /api/v1/namespaces'), 'HTTP/1.1 400 Bad Request');
  assert.equal(await answer('GET /api/v1/namespaces/default/pods/none/log'), 'HTTP/1.1 404 Not Found');
  assert.equal(await answer('GET /api/v1/namespaces/default/pods/none/exec'), 'HTTP/1.1 400 Bad Request');
  assert.equal(await answer('GET /api/v1/namespaces/default'), 'HTTP/1.1 200 OK');
});
