/** TLS that waypoints begin themselves: BackendTLSPolicies, and DestinationRules with certificates from Secrets. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TrafficPolicy } from '../../../common/codec/gen/waypoint.ts';
import {
  type CertificateSource,
  type FoundCertificates,
  readCredential,
  readRootsMap,
} from '../../../istiod-lite/model/certificate-sources.ts';
import { testAuthority } from '../../support/certificates.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

type Json = Record<string, unknown>;
const authority = testAuthority();
const web = { group: '', kind: 'Service', name: 'web' };
const ca = { group: '', kind: 'ConfigMap', name: 'ca' };
const found = (fields: Partial<FoundCertificates>): FoundCertificates => ({
  roots: '',
  certificate: '',
  privateKey: '',
  problem: undefined,
  ...fields,
});

const policy = (o: { name?: string; targetRefs?: Json[]; validation?: Json; createdAt?: string } = {}): Json => ({
  metadata: { name: o.name ?? 'tls', namespace: 'shop', generation: 2, creationTimestamp: o.createdAt ?? '2026-01-01T00:00:00Z' },
  spec: { targetRefs: o.targetRefs ?? [web], validation: o.validation ?? { hostname: 'api.example', caCertificateRefs: [ca] } },
});
const shop = (): TranslatedMesh => TranslatedMesh.shop();
const withRoots = (mesh: TranslatedMesh, roots = 'PEM'): TranslatedMesh => {
  mesh.flush();
  mesh.index.setCertificates('ConfigMap shop/ca', found({ roots }));
  return mesh.flush();
};
const conditions = (mesh: TranslatedMesh, name = 'tls'): string[] =>
  (mesh.status(`BackendTLSPolicy shop/${name}`)?.status?.ancestors ?? []).flatMap((entry) =>
    (entry as { conditions: { type: string; status: string; reason: string }[] }).conditions.map(
      ({ type, status, reason }) => `${type}=${status} ${reason}`,
    ),
  );

test('a policy’s hostname, names and roots are what a waypoint begins TLS with', () => {
  const names = [
    { type: 'Hostname', hostname: 'a.example' },
    { type: 'URI', uri: 'spiffe://x/y' },
  ];
  const mesh = shop().set(
    'BackendTLSPolicy',
    policy({ validation: { hostname: 'api.example', caCertificateRefs: [ca], subjectAltNames: names } }),
  );
  mesh.flush();
  assert.deepEqual([...mesh.index.certificateSources()], ['ConfigMap shop/ca']);
  withRoots(mesh);
  assert.deepEqual(mesh.traffic()[0]?.policy?.tls, {
    serverName: 'api.example',
    subjectAltNames: ['a.example', 'spiffe://x/y'],
    roots: 'PEM',
    unverified: false,
    clientCertificate: undefined,
    credential: '',
  });
  assert.deepEqual(conditions(mesh), ['Accepted=True Accepted', 'ResolvedRefs=True ResolvedRefs']);
  mesh.remove('BackendTLSPolicy', policy());
  assert.deepEqual(mesh.traffic(), []);
  assert.deepEqual([...mesh.index.certificateSources()], []);
});

test('as long as the roots are not there, or are none, nothing is sent, and the status says so', () => {
  const mesh = shop().set('BackendTLSPolicy', policy());
  assert.match(mesh.traffic()[0]?.policy?.refuse ?? '', /ConfigMap shop\/ca has not been read yet/);
  mesh.index.setCertificates('ConfigMap shop/ca', readRootsMap('ConfigMap shop/ca', undefined));
  assert.deepEqual(conditions(mesh), ['Accepted=False NoValidCACertificate', 'ResolvedRefs=False InvalidCACertificateRef']);
  assert.match(mesh.traffic()[0]?.policy?.refuse ?? '', /there is no ConfigMap shop\/ca/);
  assert.equal(mesh.traffic()[0]?.policy?.tls, undefined);
  withRoots(mesh);
  assert.equal(mesh.traffic()[0]?.policy?.refuse, '');
});

for (const [what, validation, expected] of [
  [
    'roots of another kind',
    { hostname: 'a', caCertificateRefs: [{ group: '', kind: 'Secret', name: 'ca' }] },
    ['Accepted=False NoValidCACertificate', 'ResolvedRefs=False InvalidKind'],
  ],
  ['no roots', { hostname: 'a' }, ['Accepted=False NoValidCACertificate', 'ResolvedRefs=True ResolvedRefs']],
  [
    'roots that nobody knows',
    { hostname: 'a', wellKnownCACertificates: 'Mine' },
    ['Accepted=False Invalid', 'ResolvedRefs=True ResolvedRefs'],
  ],
] as const) {
  test(`with ${what} nothing is sent`, () => {
    const mesh = shop().set('BackendTLSPolicy', policy({ validation: validation as Json }));
    assert.notEqual(mesh.traffic()[0]?.policy?.refuse, '');
    assert.deepEqual(conditions(mesh), expected);
  });
}

test('the system’s roots need no reference', () => {
  const mesh = shop().set('BackendTLSPolicy', policy({ validation: { hostname: 'a', wellKnownCACertificates: 'System' } }));
  assert.deepEqual([mesh.traffic()[0]?.policy?.tls?.roots, mesh.traffic()[0]?.policy?.refuse], ['', '']);
});

test('a target that is not there, or a port that it has not, is said', () => {
  const mesh = shop().set(
    'BackendTLSPolicy',
    policy({
      targetRefs: [
        { ...web, name: 'none' },
        { ...web, sectionName: 'nope' },
        { group: 'gateway.networking.k8s.io', kind: 'Gateway', name: 'wp' },
      ],
    }),
  );
  assert.deepEqual(
    conditions(withRoots(mesh)).filter((text) => text.startsWith('Accepted')),
    ['Accepted=False TargetNotFound', 'Accepted=False TargetNotFound', 'Accepted=False TargetNotFound'],
  );
});

test('of two for one service the older one counts; one for a port counts there beside it', () => {
  const system = (hostname: string): Json => ({ hostname, wellKnownCACertificates: 'System' });
  const mesh = shop()
    .set(
      'Service',
      make.service({
        name: 'web',
        ports: [
          { name: 'http', port: 80 },
          { name: 'admin', port: 81 },
        ],
      }),
    )
    .set('BackendTLSPolicy', policy({ name: 'a', validation: system('new'), createdAt: '2026-01-02T00:00:00Z' }))
    .set('BackendTLSPolicy', policy({ name: 'z', validation: system('old') }))
    .set('BackendTLSPolicy', policy({ name: 'p', validation: system('port'), targetRefs: [{ ...web, sectionName: 'admin' }] }));
  const [traffic] = mesh.traffic();
  assert.equal(traffic?.policy?.tls?.serverName, 'old');
  assert.deepEqual(
    traffic?.ports.map(({ port, policy: of }) => [port, of?.tls?.serverName]),
    [[81, 'port']],
  );
  assert.deepEqual(conditions(mesh, 'a')[0], 'Accepted=False Conflicted');
  assert.deepEqual(conditions(mesh, 'p')[0], 'Accepted=True Accepted');
  mesh.remove('BackendTLSPolicy', policy({ name: 'z' }));
  assert.equal(mesh.traffic()[0]?.policy?.tls?.serverName, 'new');
});

test('it stands beside what a DestinationRule says, for its ports and subsets too', () => {
  const mesh = shop()
    .set('BackendTLSPolicy', policy({ validation: { hostname: 'api.example', wellKnownCACertificates: 'System' } }))
    .set('DestinationRule', {
      metadata: { name: 'web', namespace: 'shop', creationTimestamp: '2026-01-01T00:00:00Z' },
      spec: {
        host: 'web.shop.svc.cluster.local',
        trafficPolicy: {
          connectionPool: { tcp: { connectTimeout: '1s' } },
          portLevelSettings: [{ port: { number: 80 }, tls: { mode: 'DISABLE' } }],
        },
        subsets: [{ name: 'v1', labels: { version: 'v1' } }],
      },
    });
  const [traffic] = mesh.traffic();
  const seen = (one: TrafficPolicy | undefined): unknown => [one?.tls?.serverName, one?.connectionPool?.connectTimeoutMs];
  assert.deepEqual(seen(traffic?.policy), ['api.example', 1000]);
  assert.deepEqual(
    traffic?.ports.map(({ policy: of }) => of?.tls?.serverName),
    ['api.example'],
  );
  assert.deepEqual(
    [seen(traffic?.subsets[0]?.policy), traffic?.subsets[0]?.ports[0]?.policy?.tls?.serverName],
    [['api.example', 1000], 'api.example'],
  );
});

const secret = (name: string, namespace = 'shop'): CertificateSource => `Secret ${namespace}/${name}`;
const rule = (tls: Json, namespace = 'shop'): Json => ({
  metadata: { name: 'web', namespace, creationTimestamp: '2026-01-01T00:00:00Z' },
  spec: { host: 'web.shop.svc.cluster.local', trafficPolicy: { tls } },
});
const RULE = 'DestinationRule shop/web';

test('MUTUAL takes certificate, key and roots from a Secret of the waypoint’s namespace, and refuses until it has been read', () => {
  const mesh = shop().set(
    'DestinationRule',
    rule({ mode: 'MUTUAL', credentialName: 'client', sni: 'api.example', subjectAltNames: ['api.example'] }),
  );
  assert.match(mesh.traffic()[0]?.policy?.refuse ?? '', /Secret shop\/client has not been read: istiod needs a Role there/);
  assert.match(mesh.message(RULE, 'WaypointAccepted') ?? '', /requests are refused at shop\/wp: Secret shop\/client has not been read/);
  assert.deepEqual([...mesh.index.certificateSources()], [secret('client')]);
  mesh.index.setCertificates(secret('client'), found({ roots: 'ROOTS', certificate: 'CERT', privateKey: 'KEY' }));
  const [traffic] = mesh.traffic();
  assert.deepEqual(traffic?.policy?.tls, {
    serverName: 'api.example',
    subjectAltNames: ['api.example'],
    roots: 'ROOTS',
    unverified: false,
    clientCertificate: { certificate: 'CERT', privateKey: 'KEY' },
    credential: 'shop/client',
  });
  assert.deepEqual(mesh.conditions(RULE), ['WaypointAccepted=True Accepted']);
  mesh.index.setCertificates(secret('client'), found({ problem: 'there is no Secret shop/client' }));
  assert.match(mesh.traffic()[0]?.policy?.refuse ?? '', /there is no Secret/);
  mesh.remove('DestinationRule', rule({}));
  mesh.flush();
  assert.deepEqual([...mesh.index.certificateSources()], []);
});

test('SIMPLE takes roots from a Secret, and no certificate, though one is there', () => {
  const mesh = shop().set('DestinationRule', rule({ mode: 'SIMPLE', credentialName: 'roots' }));
  mesh.flush();
  mesh.index.setCertificates(secret('roots'), found({ roots: 'ROOTS', certificate: 'CERT', privateKey: 'KEY' }));
  assert.deepEqual([mesh.traffic()[0]?.policy?.tls?.roots, mesh.traffic()[0]?.policy?.tls?.clientCertificate], ['ROOTS', undefined]);
});

test('a rule of another namespace cannot use the Secrets of the waypoint’s, nor has its own Secret brought there', () => {
  const mesh = new TranslatedMesh()
    .set('GatewayClass', { metadata: { name: 'istio-waypoint', generation: 1 }, spec: { controllerName: 'istio.io/mesh-controller' } })
    .set('Namespace', make.namespace('shop', { 'istio.io/use-waypoint': 'wp', 'istio.io/use-waypoint-namespace': 'infra' }))
    .set('Namespace', make.namespace('infra', {}))
    .set(
      'Gateway',
      make.gateway({ name: 'wp', namespace: 'infra', allowedRoutes: { namespaces: { from: 'All' } } } as Parameters<
        typeof make.gateway
      >[0]),
    )
    .set('Service', make.service({ name: 'web' }))
    .set('DestinationRule', rule({ mode: 'MUTUAL', credentialName: 'client' }));
  mesh.flush();
  assert.deepEqual([...mesh.index.certificateSources()], []);
  for (const traffic of mesh.traffic('infra/wp')) assert.match(traffic.policy?.refuse ?? '', /cannot use its Secrets/);
});

for (const [mode, tls, reason] of [
  ['files', { mode: 'MUTUAL', clientCertificate: '/etc/c.pem', privateKey: '/etc/k.pem' }, /needs tls.credentialName/],
  ['a file of roots', { mode: 'SIMPLE', caCertificates: '/etc/ca.pem' }, /names a file/],
  ['a mode that is none', { mode: 'PERHAPS' }, /tls.mode PERHAPS/],
] as const) {
  test(`a rule with ${mode} refuses, by name`, () =>
    assert.match(shop().set('DestinationRule', rule(tls)).traffic()[0]?.policy?.refuse ?? '', reason));
}

test('a Secret is read in both of Istio’s forms, and what is wrong with it is said without repeating it', () => {
  const { key, chain } = authority.issueServer('a');
  const other = authority.issueServer('b');
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  const read = (data: Record<string, string>): FoundCertificates =>
    readCredential('Secret a/b', { data: Object.fromEntries(Object.entries(data).map(([name, value]) => [name, base64(value)])) });
  assert.deepEqual(read({ 'tls.crt': chain, 'tls.key': key, 'ca.crt': authority.root }), {
    certificate: chain,
    privateKey: key,
    roots: authority.root,
    problem: undefined,
  });
  assert.equal(read({ cert: chain, key, cacert: authority.root }).problem, undefined);
  assert.equal(read({ cacert: authority.root }).roots, authority.root);
  for (const [data, problem] of [
    [{}, 'Secret a/b has neither tls.crt nor ca.crt'],
    [{ 'tls.crt': chain }, 'Secret a/b: a certificate without its key'],
    [{ 'tls.key': key }, 'Secret a/b: a key without its certificate'],
    [{ 'tls.crt': chain, 'tls.key': other.key }, 'Secret a/b: the key is not that of the certificate'],
    [{ 'tls.crt': chain, 'tls.key': 'hunter2' }, 'Secret a/b: the key cannot be read'],
    [{ 'tls.crt': 'hunter2', 'tls.key': key }, 'Secret a/b: its certificate is no certificate in PEM'],
  ] as const) {
    const result = read(data as Record<string, string>);
    assert.deepEqual([result.problem, result.privateKey], [problem, '']);
  }
  assert.equal(readRootsMap('ConfigMap a/b', { data: { 'ca.crt': authority.root } }).roots, authority.root);
  assert.match(readRootsMap('ConfigMap a/b', { data: { 'ca.crt': 'nothing' } }).problem ?? '', /no certificate in PEM/);
});
