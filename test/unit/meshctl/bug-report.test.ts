/** A bundle that may leave a cluster: nothing secret that was planted is in it, it has limits, and it is an archive that tar can read. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import type { KubeApi } from '../../../common/client/kube-api.ts';
import { collect } from '../../../meshctl/bug-report/collect.ts';
import { redactObject, redactText } from '../../../meshctl/bug-report/redact.ts';
import { tar } from '../../../meshctl/bug-report/tar.ts';

const PEM = '-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgPLANTEDKEY\n-----END PRIVATE KEY-----';
const JWT = 'eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJzdWIiOiJQTEFOVEVEIn0.c2lnbmF0dXJlUExBTlRFRA';

/** Each has a value that must not come through. */
const planted: readonly (readonly [secret: string, text: string])[] = [
  ['PLANTEDKEY', `key: ${PEM}`],
  ['PLANTEDKEY', JSON.stringify({ log: PEM })],
  ['PLANTEDKEY', JSON.stringify({ log: JSON.stringify({ inner: PEM }) })],
  [Buffer.from(PEM).toString('base64').slice(30, 90), `tls.key: ${Buffer.from(PEM).toString('base64')}`],
  [
    Buffer.from(PEM.replace('PRIVATE', 'EC PRIVATE')).toString('base64').slice(40, 90),
    Buffer.from(PEM.replace('PRIVATE', 'EC PRIVATE')).toString('base64'),
  ],
  ['c2lnbmF0dXJlUExBTlRFRA', `token ${JWT} was refused`],
  ['PLANTED-opaque-0123456789', 'Authorization: Bearer PLANTED-opaque-0123456789'],
  ['cGxhbnRlZDpwYXNz', 'authorization=Basic cGxhbnRlZDpwYXNz'],
  ['PLANTEDpass', 'postgres://user:PLANTEDpass@db:5432/shop'],
  ['PLANTEDpass', 'DB_PASSWORD=PLANTEDpass other=1'],
  ['PLANTED pass', '{"password": "PLANTED pass"}'],
  ['PLANTEDpass', 'log line: {\\"api_key\\":\\"PLANTEDpass\\"}'],
  ['PLANTEDpass', 'aws_secret_access_key: PLANTEDpass'],
  ['PLANTEDpass', 'client-secret=PLANTEDpass&x=1'],
];

test('keys, tokens and passwords are taken out of texts by their form or their name, and the rest stays', () => {
  for (const [secret, text] of planted) {
    const clean = redactText(text);
    assert.ok(!clean.includes(secret), `${secret} is in ${clean}`);
    assert.match(clean, /\(redacted\)/);
  }
  for (const text of [
    '2026-11-21T19:24:55.000Z\tinfo\taccess\tconnection complete\tsrc.identity="spiffe://cluster.local/ns/shop/sa/web" bytes_sent=12',
    'tokenPath: ./var/run/secrets/tokens/istio-token',
    '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----',
    'automountServiceAccountToken: false',
  ])
    assert.equal(redactText(text), text);
});

test('of objects the data of Secrets, variables and fields that are named so go; what says where a secret is stays', () => {
  const clean = JSON.stringify(
    redactObject([
      { kind: 'Secret', metadata: { name: 's' }, data: { 'tls.key': 'PLANTED', password: 'UExBTlRFRA==' }, stringData: { x: 'PLANTED' } },
      {
        kind: 'Pod',
        spec: {
          containers: [
            {
              env: [
                { name: 'DB_PASSWORD', value: 'PLANTED' },
                { name: 'MODE', value: 'kept' },
              ],
              args: ['--token=PLANTED'],
            },
          ],
        },
      },
      { kind: 'ConfigMap', data: { conf: 'password: PLANTED\nport: 80', apiKey: 'PLANTED' } },
      {
        metadata: {
          annotations: { 'kubectl.kubernetes.io/last-applied-configuration': '{"password":"PLANTED"}', note: `uses ${JWT}` },
          managedFields: [{ manager: 'PLANTED' }],
        },
      },
      { spec: { volumes: [{ secret: { secretName: 'kept-name' } }], tokenPath: '/kept' } },
    ]),
  );
  assert.ok(!clean.includes('PLANTED') && !clean.includes('UExBTlRFRA') && !clean.includes('c2lnbmF0'), clean);
  for (const kept of ['tls.key', 'DB_PASSWORD', 'MODE', 'kept', 'kept-name', '/kept', 'port: 80']) assert.ok(clean.includes(kept), kept);
});

/** An API server that has something secret in whatever it is asked for. */
function plantedApi(log = ''): KubeApi {
  const pod = { metadata: { name: 'ztunnel-1', namespace: 'istio-system' }, spec: { containers: [{ name: 'istio-proxy' }] }, status: {} };
  const api = {
    get: async () => ({ gitVersion: 'v1', password: 'PLANTEDpass' }),
    list: async (path: string) =>
      path === '/api/v1/pods'
        ? [pod]
        : path.endsWith('/secrets')
          ? assert.fail('Secrets are not asked for')
          : [{ kind: 'X', metadata: { name: path }, note: planted.map(([, text]) => text).join('\n') }],
    getText: async () => `${log}${planted.map(([, text]) => text).join('\n')}`,
    create: async () => {
      throw new Error(`no token for you: ${JWT}`);
    },
  };
  return api as unknown as KubeApi;
}

test('nothing secret that the cluster holds is in the bundle, and what cannot be had is said', async () => {
  const { files, missing } = await collect({
    api: plantedApi(),
    systemNamespace: 'istio-system',
    namespaces: ['shop'],
    logLines: 10,
    maxBytes: 1 << 24,
    signal: new AbortController().signal,
    progress: () => undefined,
  });
  const all = [...files.map(({ name, content }) => `${name}\n${content}`), ...missing].join('\n');
  for (const [secret] of planted) assert.ok(!all.includes(secret), secret);
  assert.ok(files.some(({ name }) => name === 'logs/istio-system/ztunnel-1/istio-proxy.log'));
  assert.ok(files.some(({ name }) => name === 'namespaces/shop/events.json'));
  assert.match(missing.join('\n'), /istiod\.txt: /);
});

test('a bundle ends where it is full or late, and says what is missing', async () => {
  const options = { systemNamespace: 'istio-system', namespaces: undefined, logLines: 10, progress: () => undefined };
  const full = await collect({ ...options, api: plantedApi('x'.repeat(5000)), maxBytes: 6000, signal: new AbortController().signal });
  assert.ok(full.files.reduce((sum, { content }) => sum + content.length, 0) <= 6000);
  assert.match(full.missing.join('\n'), /the bundle has 6000 bytes already/);
  const late = await collect({ ...options, api: plantedApi(), maxBytes: 1 << 24, signal: AbortSignal.abort() });
  assert.equal(late.files.length, 0);
  assert.match(late.missing.join('\n'), /the time was over/);
});

test('tar reads the archive: names, long ones too, and contents', () => {
  const long = `${'folder/'.repeat(18)}name.txt`;
  const archive = tar(
    [
      { name: 'a.txt', content: Buffer.from('one\n') },
      { name: long, content: Buffer.alloc(600, 'x') },
    ],
    1_700_000_000,
  );
  const list = spawnSync('tar', ['-tf', '-'], { input: archive, encoding: 'utf8' });
  assert.equal(list.status, 0, list.stderr);
  assert.deepEqual(list.stdout.trim().split('\n'), ['a.txt', long]);
  assert.equal(spawnSync('tar', ['-xOf', '-', 'a.txt'], { input: archive, encoding: 'utf8' }).stdout, 'one\n');
  assert.throws(() => tar([{ name: 'x'.repeat(300), content: Buffer.alloc(0) }], 0), RangeError);
});
