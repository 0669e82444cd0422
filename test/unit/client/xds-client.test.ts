import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ServerCredentials } from '@grpc/grpc-js';
import { silentLog } from '../../../common/base/log.ts';
import { type GrpcEndpoint, tokenSource } from '../../../common/client/grpc-endpoint.ts';
import { XdsClient, type XdsClientOptions, type XdsPush, type XdsTermination } from '../../../common/client/xds-client.ts';
import { testAuthority } from '../../support/certificates.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { type FakeControlPlane, startControlPlane } from '../../support/fake-control-plane.ts';
import { until } from '../../support/until.ts';

const WIDGETS = 'type.googleapis.com/test.Widget';
const GADGETS = 'type.googleapis.com/test.Gadget';

const resource = (name: string, version = '1') => ({
  name,
  version,
  aliases: [],
  resource: { typeUrl: WIDGETS, value: Buffer.from(`bytes of ${name}`) },
});

interface Watched {
  readonly client: XdsClient;
  readonly clock: FakeClock;
  readonly pushes: XdsPush[];
  readonly terminations: XdsTermination[];
  readonly held: Map<string, string>;
  synced: number;
}

function watch(t: TestContext, target: string, more: Partial<XdsClientOptions> & { endpointFields?: Partial<GrpcEndpoint> } = {}): Watched {
  const clock = new FakeClock();
  const pushes: XdsPush[] = [];
  const terminations: XdsTermination[] = [];
  const held = new Map<string, string>();
  const { endpointFields, ...options } = more;
  const client = new XdsClient({
    endpoint: { target, tls: false, root: '', alternativeName: undefined, headers: {}, ...endpointFields },
    token: () => undefined,
    clusterId: 'Kubernetes',
    node: { id: 'ztunnel~10.0.0.1~a.b~b.svc.cluster.local', cluster: '', buildVersion: '', metadata: { NAME: 'a' } },
    typeUrls: [WIDGETS, GADGETS],
    clock,
    log: silentLog,
    versions: (typeUrl) => (typeUrl === WIDGETS ? held : new Map()),
    apply: (push) => {
      const { typeUrl, resources, removed } = push;
      pushes.push({ typeUrl, resources: [...resources], removed });
      return { rejected: [] };
    },
    onTermination: (reason) => terminations.push(reason),
    onSynced: () => watched.synced++,
    ...options,
  });
  const watched: Watched = { client, clock, pushes, terminations, held, synced: 0 };
  client.start();
  t.after(() => client.stop());
  return watched;
}

const sync = async (plane: FakeControlPlane, n = 0) => {
  const stream = await plane.stream(n);
  await stream.request(1);
  return stream;
};

test('a stream begins with one request for each type, in order, with the node and no names', async (t) => {
  const plane = await startControlPlane(t);
  watch(t, plane.target);
  const stream = await sync(plane);
  assert.deepEqual(
    stream.requests.map(({ typeUrl }) => typeUrl),
    [WIDGETS, GADGETS],
  );
  for (const request of stream.requests) {
    assert.equal(request.node?.id, 'ztunnel~10.0.0.1~a.b~b.svc.cluster.local');
    assert.deepEqual(request.resourceNamesSubscribe, []);
    assert.deepEqual(request.initialResourceVersions, {});
    assert.equal(request.responseNonce, '');
  }
});

test('on demand nothing is subscribed to but what was named, on every stream, and its arrival or absence is told by name and alias', async (t) => {
  const plane = await startControlPlane(t);
  const named: string[][] = [];
  const watched = watch(t, plane.target, { onDemand: new Set([WIDGETS]), onNamed: (typeUrl, names) => named.push([typeUrl, ...names]) });
  const stream = await sync(plane);
  const [first] = stream.requests;
  assert.deepEqual([first?.resourceNamesSubscribe, first?.resourceNamesUnsubscribe], [['*'], ['*']]);
  watched.client.want(WIDGETS, '/10.0.0.1');
  watched.client.want(WIDGETS, '/10.0.0.1');
  const asked = await stream.request(2);
  assert.deepEqual([asked.typeUrl, asked.resourceNamesSubscribe, asked.responseNonce], [WIDGETS, ['/10.0.0.1'], '']);
  stream.push({
    typeUrl: WIDGETS,
    resources: [{ ...resource('one'), aliases: ['/10.0.0.1'] }],
    removedResources: ['/10.0.0.2'],
    nonce: 'n1',
  });
  await stream.request(3);
  assert.deepEqual(named, [[WIDGETS, 'one', '/10.0.0.1', '/10.0.0.2']]);
  assert.equal(watched.synced, 0, 'the other type has not come');
  stream.push({ typeUrl: GADGETS, nonce: 'n2' });
  await stream.request(4);
  assert.equal(watched.synced, 1, 'what is on demand is never complete');
  stream.end();
  await until(() => watched.terminations.length > 0);
  await watched.clock.advance(20);
  const next = await plane.stream(1);
  assert.deepEqual((await next.request(0)).resourceNamesSubscribe, ['*', '/10.0.0.1']);
});

test('a push that is taken is acknowledged by its nonce and without a node', async (t) => {
  const plane = await startControlPlane(t);
  const { pushes } = watch(t, plane.target);
  const stream = await sync(plane);
  stream.push({ typeUrl: WIDGETS, resources: [resource('one', 'v7')], removedResources: ['gone'], nonce: 'n1' });
  const ack = await stream.request(2);
  assert.equal(ack.responseNonce, 'n1');
  assert.equal(ack.typeUrl, WIDGETS);
  assert.equal(ack.node, undefined);
  assert.equal(ack.errorDetail, undefined);
  assert.deepEqual(pushes, [
    { typeUrl: WIDGETS, resources: [{ name: 'one', version: 'v7', bytes: Buffer.from('bytes of one') }], removed: ['gone'] },
  ]);
});

test('rejected resources are named in a NACK with their reasons', async (t) => {
  const plane = await startControlPlane(t);
  const watched = watch(t, plane.target, {
    apply: () => ({
      rejected: [
        { name: 'one', reason: 'no address' },
        { name: 'two', reason: 'unknown enum' },
      ],
    }),
  });
  const stream = await sync(plane);
  stream.push({ typeUrl: WIDGETS, resources: [resource('one'), resource('two')], nonce: 'n1' });
  const nack = await stream.request(2);
  assert.equal(nack.errorDetail?.message, 'one: no address; two: unknown enum');
  assert.equal(nack.errorDetail?.code, 0);
  assert.equal(nack.responseNonce, 'n1');
  assert.equal(watched.client.status.synced, false);
});

test('it is synced when every type has been taken once, and stays so', async (t) => {
  const plane = await startControlPlane(t);
  const watched = watch(t, plane.target);
  const stream = await sync(plane);
  stream.push({ typeUrl: WIDGETS });
  await stream.request(2);
  assert.equal(watched.synced, 0);
  stream.push({ typeUrl: GADGETS });
  await stream.request(3);
  assert.equal(watched.synced, 1);
  stream.push({ typeUrl: GADGETS });
  await stream.request(4);
  assert.equal(watched.synced, 1);
  stream.end();
  await until(() => watched.terminations.length === 1);
  assert.equal(watched.client.status.synced, true);
});

test('a type that nobody asked for is acknowledged and not applied', async (t) => {
  const plane = await startControlPlane(t);
  const { pushes } = watch(t, plane.target);
  const stream = await sync(plane);
  stream.push({ typeUrl: 'type.googleapis.com/test.Other', resources: [resource('one')], nonce: 'n1' });
  assert.equal((await stream.request(2)).responseNonce, 'n1');
  assert.deepEqual(pushes, []);
});

test('a new stream says what is held already', async (t) => {
  const plane = await startControlPlane(t);
  const { held, clock, terminations } = watch(t, plane.target);
  const first = await sync(plane);
  held.set('one', 'v7');
  first.end();
  await until(() => terminations.length === 1);
  await clock.advance(20);
  const second = await sync(plane, 1);
  assert.deepEqual(second.requests[0]?.initialResourceVersions, { one: 'v7' });
  assert.deepEqual(second.requests[1]?.initialResourceVersions, {});
});

test('waits double from 20 ms to 15 s while the control plane refuses, and begin again after a push', async (t) => {
  const plane = await startControlPlane(t);
  const { clock, terminations, client } = watch(t, plane.target);
  const waits: number[] = [];
  for (let i = 0; i < 12; i++) {
    const stream = await sync(plane, i);
    stream.fail(7, 'not you');
    await until(() => client.status.at === 'waiting');
    let waited = 0;
    while (client.status.at === 'waiting' && waited < 20_000) {
      waited += 10;
      await clock.advance(10);
    }
    waits.push(waited);
  }
  assert.deepEqual(waits, [20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 15_000, 15_000]);
  assert.deepEqual(new Set(terminations), new Set(['Error']));
  const stream = await sync(plane, 12);
  stream.push({ typeUrl: WIDGETS });
  await stream.request(2);
  stream.fail(7, 'not you');
  await until(() => client.status.at === 'waiting');
  await clock.advance(20);
  assert.equal(client.status.at, 'connecting');
});

test('a server that goes away on purpose is called again after 10 ms', async (t) => {
  const plane = await startControlPlane(t);
  const { clock, terminations, client } = watch(t, plane.target);
  const first = await sync(plane);
  first.push({ typeUrl: WIDGETS });
  await first.request(2);
  first.fail(1, 'restarting');
  await until(() => client.status.at === 'waiting');
  await clock.advance(10);
  await sync(plane, 1);
  assert.deepEqual(terminations, ['Reconnect']);
});

test('a server that ends every stream before it says anything is not called without pause', async (t) => {
  const plane = await startControlPlane(t);
  const { clock, client } = watch(t, plane.target);
  for (const [i, wait] of [20, 40, 80].entries()) {
    (await sync(plane, i)).end();
    await until(() => client.status.at === 'waiting');
    await clock.advance(wait - 1);
    assert.equal(client.status.at, 'waiting');
    await clock.advance(1);
  }
});

test('nobody listening is a connection error, and the client keeps trying', async (t) => {
  const { clock, terminations, client } = watch(t, '127.0.0.1:1', { typeUrls: [WIDGETS] });
  await until(() => client.status.at === 'waiting');
  assert.deepEqual(terminations, ['ConnectionError']);
  assert.match(client.status.lastError ?? '', /127\.0\.0\.1:1/);
  await clock.advance(20);
  assert.notEqual(client.status.at, 'stopped');
  await until(() => terminations.length === 2);
});

test('the token file is read for each stream, its newline is not sent, and the cluster is named beside it', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'warren-xds-'));
  t.after(() => rm(folder, { recursive: true }));
  const file = join(folder, 'token');
  writeFileSync(file, 'first\n');
  const plane = await startControlPlane(t);
  const { clock, terminations } = watch(t, plane.target, {
    token: tokenSource(file, 'unused'),
    endpointFields: { headers: { 'x-extra': 'yes' } },
  });
  const first = await sync(plane);
  assert.deepEqual(first.metadata.get('authorization'), ['Bearer first']);
  assert.deepEqual(first.metadata.get('clusterid'), ['Kubernetes']);
  assert.deepEqual(first.metadata.get('x-extra'), ['yes']);
  writeFileSync(file, 'second');
  first.end();
  await until(() => terminations.length === 1);
  await clock.advance(20);
  assert.deepEqual((await sync(plane, 1)).metadata.get('authorization'), ['Bearer second']);
});

test('an empty token file is an error that names it', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'warren-xds-'));
  t.after(() => rm(folder, { recursive: true }));
  const file = join(folder, 'token');
  writeFileSync(file, '\n');
  assert.throws(tokenSource(file, 'unused'), new RegExp(`${file} is empty`));
});

test('without a token neither header is sent', async (t) => {
  const plane = await startControlPlane(t);
  watch(t, plane.target);
  const { metadata } = await sync(plane);
  assert.deepEqual(metadata.get('authorization'), []);
  assert.deepEqual(metadata.get('clusterid'), []);
});

test("the server's name is verified, an alternative name is accepted, and roots are read for each connection", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'warren-xds-'));
  t.after(() => rm(folder, { recursive: true }));
  const authority = testAuthority();
  const { key, chain } = authority.issueServer('istiod.istio-system.svc');
  const credentials = ServerCredentials.createSsl(null, [{ private_key: Buffer.from(key), cert_chain: Buffer.from(chain) }]);
  const plane = await startControlPlane(t, { credentials, address: 'localhost' });
  const root = join(folder, 'root.pem');
  writeFileSync(root, testAuthority().root);
  const strict = watch(t, plane.target, { endpointFields: { tls: true, root } });
  await until(() => strict.client.status.at === 'waiting');
  assert.deepEqual(strict.terminations, ['ConnectionError']);

  writeFileSync(root, authority.root);
  const wrongName = watch(t, plane.target, { endpointFields: { tls: true, root } });
  await until(() => wrongName.client.status.at === 'waiting');
  assert.deepEqual(wrongName.terminations, ['ConnectionError']);

  watch(t, plane.target, { endpointFields: { tls: true, root, alternativeName: 'istiod.istio-system.svc' } });
  await sync(plane);
});

test('a control plane named by its address is compared with the address, or with the name that is accepted beside it', async (t) => {
  const authority = testAuthority();
  const { key, chain } = authority.issueServer('istiod.istio-system.svc');
  const credentials = ServerCredentials.createSsl(null, [{ private_key: Buffer.from(key), cert_chain: Buffer.from(chain) }]);
  const plane = await startControlPlane(t, { credentials, address: '127.0.0.1' });
  const target = plane.target.replace('localhost', '127.0.0.1');
  const strict = watch(t, target, { endpointFields: { tls: true, root: authority.root } });
  await until(() => strict.client.status.at === 'waiting');
  assert.deepEqual(strict.terminations, ['ConnectionError']);
  watch(t, target, { endpointFields: { tls: true, root: authority.root, alternativeName: 'istiod.istio-system.svc' } });
  await sync(plane);
});
