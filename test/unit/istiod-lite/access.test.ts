import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { Metadata } from '@grpc/grpc-js';
import { issueCertificate, readIssuer, selfSignedRoot } from '../../../common/codec/x509/certificate.ts';
import { decodePem } from '../../../common/codec/x509/pem.ts';
import { type AccessCall, accessTable, type CallSubject, createGate } from '../../../istiod-lite/access/access.ts';
import type { Caller } from '../../../istiod-lite/access/token-review.ts';

const caller = (account: string, podName = ''): Caller => {
  const [namespace = '', serviceAccount = ''] = account.split('/');
  return { namespace, serviceAccount, podName, podUid: '' };
};

const gate = createGate({
  reviewer: { review: async (token) => (token === 'good' ? { caller: caller('shop/web', 'web-1') } : { refuse: 'bad' }) },
  trustDomain: 'cluster.local',
  world: {
    isNode: ({ namespace, serviceAccount }) => namespace === 'istio-system' && serviceAccount === 'ztunnel',
    systemNamespace: 'istio-system',
    notOfGateway: (gateway, account) => (gateway === 'shop/wp' && account === 'wp' ? undefined : 'not its account'),
    isWaypointAccount: (namespace, account) => namespace === 'shop' && account === 'wp',
    onNodeOf: ({ podName }, identity) =>
      podName === 'ztunnel-a' && identity.endsWith('/sa/web') ? { allowed: true } : { allowed: false, reason: 'not on its node' },
  },
});

const WEB = { identity: 'spiffe://cluster.local/ns/shop/sa/web' };
const ztunnel = caller('istio-system/ztunnel', 'ztunnel-a');
const istiod = caller('istio-system/istiod');
const waypoint = caller('shop/wp');
const app = caller('shop/web');

/** Who may: every other caller of the list may not. */
const ROWS: Record<AccessCall, { subject: CallSubject; may: Caller[] }> = {
  'xds/ztunnel': { subject: { namespace: 'istio-system' }, may: [ztunnel] },
  'xds/waypoint': { subject: { gateway: 'shop/wp' }, may: [waypoint] },
  'xds/debug': { subject: {}, may: [ztunnel, istiod] },
  'ca/own': { subject: {}, may: [ztunnel, istiod, waypoint, app] },
  'ca/impersonate': { subject: WEB, may: [ztunnel] },
  'diagnostics/ztunnel': { subject: { namespace: 'istio-system' }, may: [ztunnel] },
  'diagnostics/waypoint': { subject: { namespace: 'shop' }, may: [waypoint] },
  'debug/all': { subject: {}, may: [ztunnel, istiod] },
  'debug/own': { subject: { namespace: 'shop' }, may: [waypoint, app] },
  'debug/journal': { subject: { namespace: 'shop' }, may: [waypoint, app] },
  'debug/rehearse': { subject: { namespace: 'shop' }, may: [waypoint, app] },
};

for (const [call, { subject, may }] of Object.entries(ROWS) as [AccessCall, (typeof ROWS)[AccessCall]][]) {
  test(`${call}: ${accessTable[call].who}`, () => {
    for (const who of [ztunnel, istiod, waypoint, app, caller('other/wp'), caller('other/ztunnel', 'ztunnel-a')]) {
      const allowed = gate.mayNot(call, who, subject) === undefined;
      const open = call === 'ca/own';
      assert.equal(allowed, open || may.includes(who), `${who.namespace}/${who.serviceAccount}`);
    }
  });
}

test('a waypoint that does not say its Gateway, or says that of another namespace, gets nothing', () => {
  assert.match(gate.mayNot('xds/waypoint', waypoint, { gateway: 'shop/' }) ?? '', /GATEWAY_NAME/);
  assert.match(gate.mayNot('xds/waypoint', waypoint, { gateway: 'other/wp' }) ?? '', /not in the caller's namespace/);
  assert.match(gate.mayNot('xds/waypoint', waypoint, { gateway: 'shop/other' }) ?? '', /not its account/);
});

const call = (authorization: string | undefined, certificate?: Buffer) => {
  const metadata = new Metadata();
  if (authorization !== undefined) metadata.set('authorization', authorization);
  return { metadata, getAuthContext: () => (certificate ? { sslPeerCertificate: { raw: certificate } } : {}) };
};
const now = Date.now();
const life = { notBefore: now - 1000, notAfter: now + 60_000 };
const root = selfSignedRoot({ trustDomain: 'cluster.local', ...life });
const certificate = (names: { uris?: string[]; dnsNames?: string[] }): Buffer => {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const publicKeySpkiDer = publicKey.export({ type: 'spki', format: 'der' });
  return derOf(issueCertificate({ issuer: readIssuer(root), publicKeySpkiDer, ...names, ...life }));
};
const derOf = (pem: string): Buffer => decodePem(pem)[0]?.der ?? Buffer.alloc(0);

test('a verified client certificate is an identity where no token is shown; a token decides where there is one', async () => {
  const orders = certificate({ uris: ['spiffe://cluster.local/ns/shop/sa/orders'] });
  assert.deepEqual(await gate.authenticate(call(undefined, orders)), { caller: caller('shop/orders') });
  assert.deepEqual(await gate.authenticate(call('Bearer good', orders)), { caller: caller('shop/web', 'web-1') });
  assert.ok('refuse' in (await gate.authenticate(call('Bearer bad', orders))), 'a bad token is not made good by a certificate');
});

test('certificates that are no workload of this mesh, and headers that are no token, prove nothing', async () => {
  const refusal = async (...of: Parameters<typeof call>): Promise<string> => {
    const authentication = await gate.authenticate(call(...of));
    return 'refuse' in authentication ? `${authentication.refuse}: ${authentication.message}` : 'accepted';
  };
  assert.match(await refusal(undefined), /^UNAUTHENTICATED: no bearer token in the authorization header, and no client certificate/);
  assert.match(await refusal('Basic eDp5'), /^UNAUTHENTICATED: no bearer token/);
  assert.match(await refusal('Bearer '), /^UNAUTHENTICATED: no bearer token/);
  assert.match(await refusal(`Bearer ${'x'.repeat(20_000)}`), /^UNAUTHENTICATED: the token is too long/);
  assert.match(await refusal(undefined, certificate({ dnsNames: ['istiod.istio-system.svc'] })), /not that of one workload/);
  assert.match(
    await refusal(undefined, certificate({ uris: ['spiffe://cluster.local/ns/a/sa/b', 'spiffe://x/ns/a/sa/b'] })),
    /not that of one/,
  );
  assert.match(await refusal(undefined, certificate({ uris: ['spiffe://other/ns/shop/sa/web'] })), /of trust domain other/);
  assert.match(await refusal(undefined, certificate({ uris: ['spiffe://cluster.local/shop'] })), /is no workload's/);
  assert.match(await refusal(undefined, derOf(root.certificatePem)), /not that of one workload/);
});
