/** A mesh without Kubernetes: objects from files, tokens for hosts, and whether they answer. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { hours, seconds, systemClock } from '../../../common/base/clock.ts';
import { readSettings } from '../../../common/base/settings.ts';
import type { KubeObject } from '../../../common/client/kube-api.ts';
import { Address, WorkloadStatus } from '../../../common/codec/gen/workload.ts';
import { createCsr } from '../../../common/codec/x509/csr.ts';
import { readCertificate } from '../../../common/codec/x509/read-certificate.ts';
import { enroll } from '../../../istiod-lite/files/enroll.ts';
import { EnrolmentTokens, newEnrolmentKey } from '../../../istiod-lite/files/enrolment-tokens.ts';
import { FileCluster } from '../../../istiod-lite/files/file-cluster.ts';
import { HealthChecks } from '../../../istiod-lite/files/health-checks.ts';
import { readObjects } from '../../../istiod-lite/files/read-objects.ts';
import { startIstiod } from '../../../istiod-lite/istiod.ts';
import { settingsTable } from '../../../istiod-lite/settings.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { ADDRESS, grpcClient, sign, TestStream } from '../../support/istiod.ts';
import { recordingLog } from '../../support/recording-log.ts';
import { until } from '../../support/until.ts';

const service = (name: string, port = 80): string => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
spec: { clusterIP: 10.0.0.1, ports: [{ name: http, port: ${port} }], selector: { app: ${name} } }
`;
const entry = (name: string, address: string, host: string): string => `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: ${name}, namespace: shop, labels: { app: orders, warren.dev/host: ${host}, networking.istio.io/tunnel: http } }
spec: { address: ${address}, serviceAccount: orders }
`;

function folders(t: TestContext) {
  const root = mkdtempSync(join(tmpdir(), 'warren-files-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const [directory, stateDirectory] = [join(root, 'config'), join(root, 'state')];
  mkdirSync(directory);
  const write = (name: string, content: string): void => writeFileSync(join(directory, name), content);
  return { directory, stateDirectory, write };
}

function cluster(t: TestContext, o: { directory: string; stateDirectory: string }) {
  const clock = new FakeClock(Date.now());
  const log = recordingLog();
  const files = new FileCluster({ ...o, clock, log });
  t.after(() => files.close());
  /** What the folder's watch does, in the test's time. */
  const look = (): Promise<void> => clock.advance(seconds(10));
  const names = async (path: string): Promise<string[]> =>
    (await files.listPage<KubeObject>(path)).items.map(({ metadata }) => metadata.name ?? '').sort();
  return { files, clock, log, look, names };
}

test('bad documents are named with their place, and a file with one is not used at all', () => {
  const problem = (content: string): string => readObjects('a.yaml', content).problems.join('; ');
  assert.match(problem('a: [1'), /^a\.yaml: /);
  assert.match(problem(`${service('web')}---\nhello\n`), /^a\.yaml, document 2: is no object$/);
  assert.match(problem('kind: Service\napiVersion: v1\nmetadata: {}\n'), /document 1: Service has no metadata\.name/);
  assert.match(problem('kind: Service\napiVersion: v1\nmetadata: { name: ../x }\n'), /that no object can have: "\.\.\/x"/);
  assert.match(
    problem('kind: Deployment\napiVersion: apps/v1\nmetadata: { name: web }\n'),
    /Deployment web of apps\/v1: this kind is not read/,
  );
  assert.match(problem('kind: Gateway\napiVersion: networking.istio.io/v1\nmetadata: { name: g }\n'), /this kind is not read/);
  const bomb = [
    'a: &a [x,x,x,x,x,x,x,x,x,x]',
    ...'bcdefgh'.split('').map((key, i) => `${key}: &${key} [${Array(10).fill(`*${'abcdefgh'[i]}`)}]`),
  ];
  assert.match(problem(`kind: Service\n${bomb.join('\n')}\n`), /more than 1000000 values/);
  assert.deepEqual(
    readObjects(
      'a.yaml',
      `kind: List\nitems:\n- ${JSON.stringify({ kind: 'Service', apiVersion: 'v1', metadata: { name: 'x' } })}`,
    ).objects.map(({ object }) => object.metadata),
    [{ name: 'x', namespace: 'default' }],
  );
});

test('files are listed and watched: what is added, changed and removed is told, and what stays the same is not', async (t) => {
  const at = folders(t);
  at.write('web.yaml', service('web'));
  const { files, look } = cluster(t, at);
  const page = await files.listPage<KubeObject>('/api/v1/services');
  assert.deepEqual(
    page.items.map(({ metadata }) => metadata.name),
    ['web'],
  );
  const events: string[] = [];
  const stop = new AbortController();
  const watching = files.watch<KubeObject>(
    '/api/v1/services',
    { resourceVersion: page.resourceVersion },
    ({ type, object }) => {
      if (type !== 'BOOKMARK') events.push(`${type} ${object.metadata.name}`);
    },
    stop.signal,
  );
  at.write('more.yaml', `${service('api')}---${service('web2')}`);
  await look();
  at.write('web.yaml', `# only a comment more\n${service('web')}`);
  await look();
  at.write('web.yaml', service('web', 8080));
  await look();
  rmSync(join(at.directory, 'more.yaml'));
  await look();
  stop.abort(new Error('enough'));
  await assert.rejects(watching, /enough/);
  assert.deepEqual(events, ['ADDED api', 'ADDED web2', 'MODIFIED web', 'DELETED api', 'DELETED web2']);
});

test('a file that becomes unreadable keeps what it said, and is complained about once; a start with one fails', async (t) => {
  const at = folders(t);
  at.write('a.yaml', service('web'));
  const { look, names, log, files } = cluster(t, at);
  at.write('a.yaml', `${service('web')}---\nkind: Nonsense\n`);
  at.write('b.yaml', service('web', 81));
  await look();
  await look();
  assert.deepEqual(await names('/api/v1/services'), ['web']);
  const complaints = log.entries.filter(({ level }) => level === 'error').map(({ fields }) => String(fields.error));
  assert.equal(complaints.length, 2, complaints.join('\n'));
  assert.match(complaints.join(), /b\.yaml: Service shop\/web is in a\.yaml too/);
  assert.equal(files.problems.length, 2);
  assert.throws(() => new FileCluster({ ...at, clock: new FakeClock(), log }), /a\.yaml, document 2/);
});

test('keys survive a restart, readable by their owner only', async (t) => {
  const at = folders(t);
  const first = cluster(t, at).files;
  const path = '/api/v1/namespaces/istio-system/secrets';
  await first.create(path, { metadata: { name: 'istio-ca-secret', namespace: 'istio-system' }, data: { 'ca-key.pem': 'x' } });
  const stored = await first.get<KubeObject>(`${path}/istio-ca-secret`);
  await assert.rejects(first.create(path, { metadata: { name: 'istio-ca-secret', namespace: 'istio-system' } }), { status: 409 });
  await assert.rejects(first.replace(`${path}/istio-ca-secret`, { ...stored, metadata: { ...stored.metadata, resourceVersion: '0' } }), {
    status: 409,
  });
  await first.replace(`${path}/istio-ca-secret`, { ...stored, data: { 'ca-key.pem': 'y' } });
  const second = cluster(t, at).files;
  assert.deepEqual((await second.get<KubeObject>(`${path}/istio-ca-secret`)).data, { 'ca-key.pem': 'y' });
  for (const file of ['secrets.json', 'enrolment-key.pem']) assert.equal(statSync(join(at.stateDirectory, file)).mode & 0o777, 0o600, file);
  assert.equal(statSync(at.stateDirectory).mode & 0o777, 0o700);
  await assert.rejects(second.patch('/apis/apps/v1/namespaces/shop/deployments/x', {}, { type: 'apply' }), { status: 405 });
});

test('a host proves itself with a token of this mesh, and with no other', () => {
  const now = Date.now();
  const tokens = new EnrolmentTokens(newEnrolmentKey());
  const host = { host: 'vm1', namespace: 'shop', serviceAccount: 'orders' };
  const good = tokens.issue(host, now, now + hours(1));
  const review = (token: string, at = now) =>
    tokens.review(token, ['istio-ca'], at) as { authenticated: boolean; error?: string; user?: { username: string }; audiences?: string[] };
  assert.equal(review(good).user?.username, 'system:serviceaccount:shop:orders');
  assert.deepEqual(tokens.review(good, ['other'], now), { ...tokens.review(good, ['istio-ca'], now), audiences: [] });
  assert.match(review(good, now + hours(2)).error ?? '', /expired at/);
  assert.match(review(new EnrolmentTokens(newEnrolmentKey()).issue(host, now, now + hours(1))).error ?? '', /not signed by this mesh/);
  const [head = '', body = '', signature = ''] = good.split('.');
  const forged = Buffer.from(
    JSON.stringify({ ...JSON.parse(Buffer.from(body, 'base64url').toString()), sub: 'system:serviceaccount:istio-system:ztunnel' }),
  );
  const none = Buffer.from('{"alg":"none"}').toString('base64url');
  for (const token of [
    `${head}.${forged.toString('base64url')}.${signature}`,
    `${none}.${body}.`,
    `${none}.${body}.${signature}`,
    `${head}.${body}`,
    'x',
    '',
  ])
    assert.equal(review(token).authenticated, false, token);
  assert.throws(() => tokens.issue({ ...host, namespace: 'a:b' }, now, now), /namespace "a:b": expected/);
});

test('a host that does not answer three times in a row is unhealthy, and healthy as soon as it answers', async (t) => {
  const clock = new FakeClock();
  const told: string[] = [];
  let up = true;
  const checks = new HealthChecks({
    intervalMs: seconds(5),
    api: {
      patch: async (path, body) =>
        void told.push(
          `${path.split('/')[7]} ${(body as { status: { conditions: { status: string }[] } }).status.conditions[0]?.status}`,
        ) as never,
    },
    clock,
    log: recordingLog(),
    connects: async (host, port) => up && host === '10.0.0.1' && port === 15008,
  });
  t.after(() => checks.stop());
  const object = readObjects('a', entry('vm', '10.0.0.1', 'vm1')).objects[0]?.object;
  assert.ok(object);
  checks.entryChanged(object, false);
  await clock.advance(seconds(5));
  assert.deepEqual(told, ['vm True']);
  up = false;
  await clock.advance(seconds(10));
  assert.equal(told.length, 1, 'twice is no proof');
  await clock.advance(seconds(5));
  assert.deepEqual(told, ['vm True', 'vm False']);
  up = true;
  await clock.advance(seconds(5));
  assert.deepEqual(told, ['vm True', 'vm False', 'vm True']);
  checks.entryChanged(object, true);
  up = false;
  await clock.advance(seconds(60));
  assert.equal(told.length, 3);
});

test('istiod serves a mesh of hosts from files: who has a token syncs and gets certificates for what runs there', async (t) => {
  const at = folders(t);
  at.write('mesh.yaml', `${service('orders')}---${entry('orders-1', '127.0.0.1', 'vm1')}`);
  const env = { WARREN_CONFIG_DIR: at.directory, WARREN_STATE_DIR: at.stateDirectory };
  const log = recordingLog();
  const files = new FileCluster({ ...at, clock: systemClock, log });
  const settings = {
    ...readSettings(settingsTable, env),
    grpcPort: 0,
    monitoringPort: 0,
    httpsPort: 0,
    httpPort: 0,
    rootCaDirectory: '/nonexistent',
    drainMs: 0,
  };
  const istiod = await startIstiod({ settings, api: files, clock: systemClock, random: Math.random, log });
  t.after(() => istiod.close());
  await until(() => istiod.ready);
  const roots = readFileSync(join(at.stateDirectory, 'root-cert.pem'), 'utf8');
  const client = grpcClient(`localhost:${istiod.grpcPort}`, roots);
  t.after(() => client.close());
  const token = (host: string, account = 'orders'): string =>
    enroll([`--host=${host}`, '--namespace=shop', `--service-account=${account}`, `--state-dir=${at.stateDirectory}`], {}, Date.now());
  const node = {
    id: 'ztunnel~127.0.0.1~orders-1.shop~shop.svc.cluster.local',
    cluster: '',
    buildVersion: '',
    metadata: { NAMESPACE: 'shop', NODE_NAME: 'vm1' },
  };
  const stream = new TestStream(client, token('vm1'));
  stream.subscribe(ADDRESS, { node });
  const first = await stream.next();
  stream.ack(first);
  assert.deepEqual(first.resources.map(({ name }) => name).sort(), [
    'Kubernetes/networking.istio.io/WorkloadEntry/shop/orders-1',
    'shop/orders.shop.svc.cluster.local',
  ]);

  const csr = createCsr({ uri: 'x', key: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey });
  const { certChain } = await sign(client, token('vm1'), { csr });
  assert.deepEqual(readCertificate(certChain[0] ?? '').uris, ['spiffe://cluster.local/ns/shop/sa/orders']);
  const stranger = new TestStream(client, token('vm9'));
  stranger.subscribe(ADDRESS, { node });
  assert.equal((await stranger.failure()).code, status.PERMISSION_DENIED, 'a host that runs nothing of the mesh is told nothing');
  const metadata = { ImpersonatedIdentity: 'spiffe://cluster.local/ns/shop/sa/orders' };
  await assert.rejects(sign(client, token('vm1', 'other'), { csr, metadata }), { code: status.UNAUTHENTICATED });

  // What a health check writes.
  const path = '/apis/networking.istio.io/v1/namespaces/shop/workloadentries/orders-1/status';
  await files.patch(
    path,
    { status: { conditions: [{ type: 'Healthy', status: 'False' }] } },
    { type: 'apply', fieldManager: 'warren-health' },
  );
  const unhealthy = (await stream.next()).resources[0]?.resource?.value ?? new Uint8Array();
  const { type } = Address.decode(unhealthy);
  assert.equal(type?.$case === 'workload' && type.value.status, WorkloadStatus.UNHEALTHY);
});

test('enroll says what is missing', () => {
  assert.throws(() => enroll([], {}, 0), /--host is missing/);
  assert.throws(() => enroll(['--host=x', '--ttl=soon'], {}, 0), /expected a duration/);
});
