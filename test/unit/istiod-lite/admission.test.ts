/** What the API server is told of objects: over the real port, and review by review. */
import assert from 'node:assert/strict';
import { request } from 'node:https';
import { test } from 'node:test';
import { systemClock } from '../../../common/base/clock.ts';
import { review } from '../../../istiod-lite/admission/review.ts';
import { WebhookConfiguration } from '../../../istiod-lite/admission/webhook-configuration.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import { FakeKubeApi } from '../../support/fake-kube-api.ts';
import { startTestIstiod } from '../../support/istiod.ts';
import * as make from '../../support/kube-objects.ts';
import { recordingLog } from '../../support/recording-log.ts';
import { until } from '../../support/until.ts';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};

type Json = Record<string, unknown>;

const KINDS: Readonly<Record<string, readonly [group: string, version: string]>> = {
  AuthorizationPolicy: ['security.istio.io', 'v1'],
  PeerAuthentication: ['security.istio.io', 'v1'],
  VirtualService: ['networking.istio.io', 'v1'],
  EnvoyFilter: ['networking.istio.io', 'v1alpha3'],
  HTTPRoute: ['gateway.networking.k8s.io', 'v1'],
  BackendTLSPolicy: ['gateway.networking.k8s.io', 'v1'],
  Service: ['', 'v1'],
  GatewayClass: ['gateway.networking.k8s.io', 'v1'],
};

function reviewOf(kind: string, object: Json | null, oldObject: Json | null = null): Json {
  const [group = '', version = ''] = KINDS[kind] ?? [];
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'u-1',
      kind: { group, version, kind },
      namespace: 'shop',
      name: 'p',
      operation: oldObject ? 'UPDATE' : 'CREATE',
      object,
      oldObject,
    },
  };
}

interface Response {
  readonly uid: string;
  readonly allowed: boolean;
  readonly status?: { readonly code: number; readonly message: string };
  readonly warnings?: readonly string[];
}

function judged(body: Json, { strict = false, index = new MeshIndex(config) } = {}): Response {
  const outcome = review(body, index, { config, strict });
  assert.ok(outcome);
  return (outcome.answer as { response: Response }).response;
}

const deny = (spec: Json): Json => make.authorizationPolicy({ name: 'p', spec: { action: 'DENY', ...spec } });
const ranges = (...ipBlocks: string[]): Json => deny({ rules: [{ from: [{ source: { ipBlocks } }] }] });

test('what makes no sense is refused by name, what is enforced more strictly is warned about, the rest passes in silence', () => {
  const refused = judged(reviewOf('AuthorizationPolicy', ranges('10.0.0.0/64')));
  assert.equal(refused.uid, 'u-1');
  assert.equal(refused.allowed, false);
  assert.match(refused.status?.message ?? '', /^\[IST0106\] AuthorizationPolicy shop\/p: .*"10\.0\.0\.0\/64" cannot be read$/);
  const warned = judged(reviewOf('AuthorizationPolicy', deny({ rules: [{ to: [{ operation: { methods: ['GET'] } }] }] })));
  assert.equal(warned.allowed, true);
  assert.match(warned.warnings?.join() ?? '', /^\[WRN0202\] AuthorizationPolicy shop\/p: .*methods/);
  assert.deepEqual(judged(reviewOf('AuthorizationPolicy', ranges('10.0.0.0/8'))), { uid: 'u-1', allowed: true });
});

test('what no object to come could make enforceable is refused, and what one could is not', () => {
  const target = (kind: string, group: string): Json => deny({ targetRefs: [{ kind, group, name: 'web' }], rules: [{}] });
  assert.match(
    judged(reviewOf('AuthorizationPolicy', target('Deployment', 'apps'))).status?.message ?? '',
    /WRN0201.*cannot target Deployment/,
  );
  const later = judged(reviewOf('AuthorizationPolicy', target('Service', '')));
  assert.equal(later.allowed, true);
  assert.match(later.warnings?.join() ?? '', /IST0101.*there is no Service shop\/web/);
  const custom = make.authorizationPolicy({ name: 'p', spec: { action: 'CUSTOM', provider: { name: 'x' }, rules: [{}] } });
  assert.equal(judged(reviewOf('AuthorizationPolicy', custom)).allowed, false);
  const ports = make.peerAuthentication({ name: 'p', ports: { 80: 'STRICT' } });
  assert.equal(judged(reviewOf('PeerAuthentication', ports)).allowed, false);
});

test('a misspelt field of Istio’s kinds is refused by its place: a DENY with rulez would deny nothing', () => {
  assert.match(
    judged(reviewOf('AuthorizationPolicy', deny({ rulez: [{}] }))).status?.message ?? '',
    /IST0106.* spec\.rulez: there is no such field/,
  );
  const inner = deny({ rules: [{ form: [] }, { from: [{ source: { principal: ['a'] } }] }] });
  const { message } = judged(reviewOf('AuthorizationPolicy', inner)).status ?? {};
  assert.match(message ?? '', /spec\.rules\[0\]\.form: .*spec\.rules\[1\]\.from\[0\]\.source\.principal: /s);
  const route = { match: [{ uri: { prefix: '/' } }], route: [{ destination: { host: 'web' } }], retry: {} };
  const virtual = make.virtualService({ name: 'p', spec: { hosts: ['web'], http: [route] } });
  assert.match(judged(reviewOf('VirtualService', virtual)).status?.message ?? '', /spec\.http\[0\]\.retry: /);
});

test('a setting refuses what would be enforced otherwise than written', () => {
  const policy = deny({ rules: [{ to: [{ operation: { methods: ['GET'] } }] }] });
  assert.equal(judged(reviewOf('AuthorizationPolicy', policy), { strict: true }).allowed, false);
  assert.equal(judged(reviewOf('AuthorizationPolicy', ranges('10.0.0.0/8')), { strict: true }).allowed, true);
});

test('the judgement is made against what istiod knows', () => {
  const index = new MeshIndex(config);
  index.apply({ type: 'added', kind: 'Service', object: make.service({ name: 'web' }) });
  index.flush();
  const policy = deny({ targetRefs: [{ group: '', kind: 'Service', name: 'web' }], rules: [{}] });
  assert.match(judged(reviewOf('AuthorizationPolicy', policy), { index }).warnings?.join() ?? '', /WRN0204.*names no waypoint/);
  // Nothing of what was asked about is kept.
  assert.equal([...index.problems()].length, 0);
  assert.deepEqual(index.flush().statuses, []);
});

test('a change is not refused for what was wrong before it, and what is being deleted may change', () => {
  const before = ranges('10.0.0.0/64');
  const labelled = { ...before, metadata: { ...(before.metadata as Json), labels: { team: 'a' } } };
  const kept = judged(reviewOf('AuthorizationPolicy', labelled, before));
  assert.equal(kept.allowed, true);
  assert.match(kept.warnings?.join() ?? '', /IST0106/);
  assert.equal(judged(reviewOf('AuthorizationPolicy', ranges('10.0.0.0/64', '10.0.0.0/65'), before)).allowed, false);
  const going = { ...before, metadata: { ...(before.metadata as Json), deletionTimestamp: '2026-01-01T00:00:00Z' } };
  assert.deepEqual(judged(reviewOf('AuthorizationPolicy', going)), { uid: 'u-1', allowed: true });
});

test('a class of waypoints is judged as Gateways are, and those of other controllers are not', () => {
  const classOf = (controllerName: string, metadata: Json, spec: Json = {}): Json => ({
    metadata: { name: 'large', ...metadata },
    spec: { controllerName, ...spec },
  });
  const odd = { labels: { 'istio.io/waypoint-for': 'pods' } };
  const refused = judged(reviewOf('GatewayClass', classOf('istio.io/mesh-controller', odd)));
  assert.match(refused.status?.message ?? '', /^\[IST0106\] GatewayClass large: .*"pods" is none of service/);
  const parameters = { parametersRef: { group: '', kind: 'ConfigMap', name: 'opts', namespace: 'istio-system' } };
  assert.match(
    judged(reviewOf('GatewayClass', classOf('istio.io/mesh-controller', {}, parameters))).status?.message ?? '',
    /GatewayClass large: .*spec\.parametersRef is not read/,
  );
  assert.equal(judged(reviewOf('GatewayClass', classOf('istio.io/mesh-controller', {}))).allowed, true);
  assert.equal(judged(reviewOf('GatewayClass', classOf('example.com/other', odd, parameters))).allowed, true);
});

test('objects of Kubernetes itself are never refused', () => {
  const service = make.service({ name: 'web', labels: { 'istio.io/use-waypoint': 'gone' }, ports: [{ port: 0 }] });
  const answer = judged(reviewOf('Service', service), { strict: true });
  assert.equal(answer.allowed, true);
  assert.match(answer.warnings?.join() ?? '', /WRN0101.*there is no waypoint shop\/gone/);
});

test('a route of another controller is that one’s to judge', () => {
  const rules = [{ matches: [{ path: { type: 'RegularExpression', value: '(?=a)' } }] }];
  const ours = make.httpRoute({ name: 'p', rules });
  assert.equal(judged(reviewOf('HTTPRoute', ours)).allowed, false);
  const theirs = { ...ours, spec: { parentRefs: [{ name: 'ingress' }], rules } };
  assert.deepEqual(judged(reviewOf('HTTPRoute', theirs)), { uid: 'u-1', allowed: true });
});

test('warnings are short enough for the API server, however much is wrong', () => {
  const conditions = Array.from({ length: 500 }, (_, i) => ({ key: `experimental.envoy.filters.${'x'.repeat(300)}${i}`, values: ['a'] }));
  const { warnings = [] } = judged(reviewOf('AuthorizationPolicy', deny({ rules: [{ when: conditions }] })));
  assert.ok(warnings.length > 0 && warnings.length <= 12);
  assert.ok(warnings.every((warning) => warning.length <= 256));
});

test('whoever brings a policy that is carried out by others too is warned, and not refused', () => {
  const policy = {
    metadata: { name: 'p', namespace: 'shop' },
    spec: {
      targetRefs: [{ group: '', kind: 'Service', name: 'web' }],
      validation: { hostname: 'web', caCertificateRefs: [{ group: '', kind: 'Secret', name: 'ca' }] },
    },
  };
  const { allowed, warnings = [] } = judged(reviewOf('BackendTLSPolicy', policy));
  assert.equal(allowed, true);
  assert.match(warnings.join(), /WRN0205.*a ConfigMap is needed/);
  assert.match(warnings.join(), /IST0101.*there is no Service shop\/web/);
});

test('what is no review gets no answer', () => {
  for (const body of [undefined, null, 7, [], {}, { request: 5 }, { request: { object: {} } }])
    assert.equal(review(body, new MeshIndex(config), { config, strict: false }), undefined);
  // A review of anything at all is answered.
  for (const object of [null, 7, [], {}, { metadata: null }, { metadata: { name: 5 } }] as never[])
    assert.equal(judged(reviewOf('VirtualService', object)).allowed, true);
});

const CONFIGURATION = '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations';

test('the port answers with istiod’s certificate, and the configuration gets its roots, also when somebody takes them out', async (t) => {
  const configuration = (caBundle?: string) => ({
    metadata: { name: 'istio-validator-istio-system' },
    webhooks: [
      { name: 'validation.istio.io', clientConfig: { service: { name: 'istiod' }, ...(caBundle && { caBundle }) }, sideEffects: 'None' },
    ],
  });
  const { kube, istiod, roots, http } = await startTestIstiod(t, { prepare: (api) => void api.put(CONFIGURATION, configuration()) });
  const bundle = (): string => {
    const stored: unknown = kube.get(CONFIGURATION, 'istio-validator-istio-system')?.webhooks;
    const [webhook] = stored as { clientConfig: { caBundle?: string } }[];
    return Buffer.from(webhook?.clientConfig.caBundle ?? '', 'base64').toString();
  };
  await until(() => bundle() === roots);
  kube.put(CONFIGURATION, configuration(Buffer.from('somebody else’s').toString('base64')));
  await until(() => bundle() === roots);

  const ask = (path: string, body: string, method = 'POST'): Promise<{ status: number; text: string }> =>
    new Promise((resolve, reject) => {
      const options = { port: istiod.webhookPort, path, method, ca: roots, servername: 'istiod.istio-system.svc', agent: false };
      const asking = request(options, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      });
      asking.on('error', reject).end(body);
    });
  const answer = await ask('/validate?timeout=2s', JSON.stringify(reviewOf('AuthorizationPolicy', ranges('10.0.0.0/64'))));
  assert.equal(answer.status, 200);
  assert.equal(JSON.parse(answer.text).response.allowed, false);
  assert.equal((await ask('/validate', '{')).status, 400);
  assert.equal((await ask('/validate', '{}')).status, 400);
  assert.equal((await ask('/validate', '', 'GET')).status, 405);
  assert.equal((await ask('/inject', '{}')).status, 404);
  assert.equal((await ask('/validate', ' '.repeat(9 << 20))).status, 413);
  const metrics = await http('/metrics');
  assert.match(metrics, /warren_admission_reviews_total\{outcome="refused"\} 1/);
  assert.match(metrics, /warren_admission_reviews_total\{outcome="failed"\} 3/);
});

test('while a root is replaced the configuration has both, and only the replica that writes puts them there', async (t) => {
  const kube = await FakeKubeApi.start(t);
  const webhook = (name: string) => ({ name, clientConfig: { service: { name: 'istiod' } } });
  kube.put(CONFIGURATION, { metadata: { name: 'ours' }, webhooks: [webhook('a'), webhook('b')] });
  kube.put(CONFIGURATION, { metadata: { name: 'theirs' }, webhooks: [webhook('a')] });
  const stop = new AbortController();
  t.after(() => stop.abort());
  let writes = false;
  const options = {
    name: 'ours',
    api: kube.client('istiod'),
    clock: systemClock,
    random: Math.random,
    log: recordingLog(),
    signal: stop.signal,
  };
  const configuration = new WebhookConfiguration({ ...options, writes: () => writes });
  const bundles = (name: string): (string | undefined)[] => {
    const stored: unknown = kube.get(CONFIGURATION, name)?.webhooks;
    return (stored as { clientConfig: { caBundle?: string } }[]).map(({ clientConfig: { caBundle } }) =>
      caBundle === undefined ? undefined : Buffer.from(caBundle, 'base64').toString(),
    );
  };
  configuration.setRoots('old');
  assert.deepEqual(bundles('ours'), [undefined, undefined]);
  writes = true;
  await until(() => {
    configuration.act();
    return bundles('ours').join() === 'old,old';
  });
  configuration.setRoots('old\nnew');
  await until(() => bundles('ours').every((bundle) => bundle === 'old\nnew'));
  configuration.setRoots('new');
  await until(() => bundles('ours').every((bundle) => bundle === 'new'));
  assert.deepEqual(bundles('theirs'), [undefined]);
});
