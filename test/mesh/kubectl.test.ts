/** The real kubectl against the playground's API server: what somebody types who follows our documentation. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { createServingCertificate } from '../../playground/apiserver/identity/certificates.ts';
import type { KubeObject } from '../../playground/apiserver/object.ts';
import { type KubectlFixture, startKubectl, withoutKubectl } from '../support/kubectl.ts';

const options = { skip: withoutKubectl ?? false, timeout: 120_000 };

const web = (replicas: number, image = 'echo:1'): string => `
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, labels: { app: web } }
spec:
  replicas: ${replicas}
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers:
      - name: app
        image: ${image}
        ports: [{ containerPort: 8080, name: http }]
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { clusterIP: 10.96.7.7, selector: { app: web }, ports: [{ port: 80, targetPort: http }] }
`;

const podManifest = (name: string): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, labels: { app: ${name} } }
spec: { nodeName: n1, terminationGracePeriodSeconds: 1, containers: [{ name: app, image: echo, ports: [{ containerPort: 8080 }] }] }
`;

async function runningPod({ api, ok }: KubectlFixture, name: string): Promise<void> {
  await ok('apply -f -', podManifest(name));
  const pod = structuredClone(api.store.get('Pod', name, 'default')) ?? assert.fail('no pod');
  const containerStatuses = [
    {
      name: 'app',
      image: 'echo',
      imageID: '',
      ready: true,
      restartCount: 0,
      started: true,
      state: { running: { startedAt: '2026-01-01T00:00:00Z' } },
    },
  ];
  api.store.updateStatus({
    ...pod,
    status: { phase: 'Running', podIP: '10.1.2.3', conditions: [{ type: 'Ready', status: 'True' }], containerStatuses },
  });
}

const columns = (table: string): string[][] =>
  table
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s{2,}/));

test('kubectl applies, gets, describes and changes a deployment and its service', options, async (t) => {
  const { ok, api } = await startKubectl(t);
  assert.equal(await ok('apply -f -', web(2)), 'deployment.apps/web created\nservice/web created\n');
  assert.equal(await ok('apply -f -', web(2)), 'deployment.apps/web unchanged\nservice/web unchanged\n');
  assert.equal(await ok('apply -f -', web(3, 'echo:2')), 'deployment.apps/web configured\nservice/web unchanged\n');

  const [head, row] = columns(await ok('get deployments'));
  assert.deepEqual(head, ['NAME', 'READY', 'UP-TO-DATE', 'AVAILABLE', 'AGE']);
  assert.deepEqual(row?.slice(0, 4), ['web', '0/3', '0', '0']);
  assert.deepEqual(
    columns(await ok('get svc web -o wide'))[1]?.filter((_, i) => i !== 5),
    ['web', 'ClusterIP', '10.96.7.7', '<none>', '80/TCP', 'app=web'],
  );
  assert.equal(await ok('get deploy -l app=web -o name'), 'deployment.apps/web\n');
  assert.equal(await ok('get deploy -l app=other -o name'), '');
  assert.equal(await ok("get deploy web -o jsonpath='{.spec.replicas} {.spec.template.spec.containers[0].image}'"), '3 echo:2');
  assert.equal((JSON.parse(await ok('get deploy web -o json')) as KubeObject).kind, 'Deployment');
  assert.match(await ok('get deploy web -o yaml'), /^apiVersion: apps\/v1\n[\s\S]*progressDeadlineSeconds: 600\n/);
  assert.equal(await ok('get pods --field-selector status.phase=Running'), '');

  const described = await ok('describe deployment web');
  assert.match(described, /Selector: +app=web\nReplicas: +3 desired/);
  assert.match(described, /Image: +echo:2\n/);
  assert.match(await ok('describe service web'), /TargetPort: +http\/TCP\n/);

  await ok('label deploy web team=a');
  await ok('annotate deploy web note=x');
  assert.equal(await ok("get deploy web -o jsonpath='{.metadata.labels.team}{.metadata.annotations.note}'"), 'ax');
  await ok('label deploy web team-');
  await ok(`patch deploy web -p {"spec":{"template":{"spec":{"containers":[{"name":"app","env":[{"name":"A","value":"1"}]}]}}}}`);
  await ok(`patch deploy web --type merge -p {"spec":{"paused":true}}`);
  await ok(`patch deploy web --type json -p [{"op":"remove","path":"/spec/paused"}]`);
  assert.equal(
    await ok(
      "get deploy web -o jsonpath='{.spec.template.spec.containers[0].env[0].name} {.spec.template.spec.containers[0].image} {.spec.paused}'",
    ),
    'A echo:2 ',
  );
  await ok('scale deploy web --replicas 5');
  await ok('set image deploy/web app=echo:3');
  await ok('rollout restart deploy/web');
  const { spec, metadata } = api.store.get('Deployment', 'web', 'default') as unknown as {
    spec: { replicas: number; template: { metadata: { annotations: object } } };
    metadata: { generation: number };
  };
  assert.equal(spec.replicas, 5);
  assert.deepEqual(Object.keys(spec.template.metadata.annotations), ['kubectl.kubernetes.io/restartedAt']);
  assert.equal(metadata.generation, 8);
  assert.match(await ok('diff -f - --field-manager x', web(3)).catch((error: Error) => error.message), /ended with 1/);
  assert.match(await ok('explain deployment.spec.strategy'), /FIELD: strategy <DeploymentStrategy>[\s\S]*rollingUpdate/);
  // Newer ones add the namespace.
  assert.match(await ok('delete deploy/web svc/web'), /^deployment.apps "web" deleted.*\nservice "web" deleted.*\n$/);
});

test('server-side apply shows conflicts, and takes fields by force', options, async (t) => {
  const { ok, run } = await startKubectl(t);
  assert.equal(await ok('apply --server-side -f -', web(2)), 'deployment.apps/web serverside-applied\nservice/web serverside-applied\n');
  await ok('scale deploy web --replicas 4');
  const refused = await run('apply --server-side -f -', { input: web(3) });
  assert.equal(refused.code, 1);
  assert.match(refused.err, /Apply failed with 1 conflict: conflict with "kubectl".*: \.spec\.replicas/);
  await ok('apply --server-side --force-conflicts -f -', web(3));
  assert.equal(await ok("get deploy web -o jsonpath='{.spec.replicas}'"), '3');
  assert.match(await ok('get deploy web -o yaml --show-managed-fields'), /manager: kubectl\n +operation: Apply/);
});

test('what was applied by the client is handed over to server-side apply', options, async (t) => {
  const { ok } = await startKubectl(t);
  await ok('apply -f -', web(2));
  await ok('apply --server-side -f -', web(3, 'echo:2').replace('labels: { app: web } }', 'labels: { tier: web } }'));
  assert.equal(await ok("get deploy web -o jsonpath='{.spec.replicas} {.metadata.labels}'"), '3 {"tier":"web"}');
  assert.doesNotMatch(await ok('get deploy web -o yaml --show-managed-fields'), /operation: Update/);
});

test('create, edit and replace work, whatever encoding kubectl chooses', options, async (t) => {
  const { ok, run, kubeconfigFile } = await startKubectl(t);
  await ok('create namespace shop');
  await ok('create configmap settings --from-literal a=1 -n shop');
  await ok('create secret generic keys --from-literal k=v -n shop');
  await ok('create deployment api --image echo:1 --port 80 --replicas 2 -n shop');
  await ok('create service clusterip api --tcp 80:8080 -n shop');
  await ok('create serviceaccount bot -n shop');
  await ok('run once --image echo --restart Never -n shop');
  assert.equal(await ok("get secret keys -n shop -o jsonpath='{.data.k}'"), 'dg==');
  assert.equal(
    await ok("get deploy api -n shop -o jsonpath='{.spec.replicas} {.spec.template.spec.containers[0].ports[0].containerPort}'"),
    '2 80',
  );
  assert.equal(await ok("get svc api -n shop -o jsonpath='{.spec.ports[0].targetPort}'"), '8080');
  const editor = join(dirname(kubeconfigFile), 'editor');
  writeFileSync(editor, '#!/bin/sh\nsed -i "s/a: \\"1\\"/a: \\"2\\"/" "$1"\n');
  chmodSync(editor, 0o755);
  assert.equal((await run('edit configmap settings -n shop', { env: { KUBE_EDITOR: editor } })).out, 'configmap/settings edited\n');
  assert.equal(await ok("get cm settings -n shop -o jsonpath='{.data.a}'"), '2');
  const live = await ok('get cm settings -n shop -o json');
  await ok('replace -f -', live.replace('"a": "2"', '"a": "3"'));
  const stale = await run('replace -f -', { input: live });
  assert.match(stale.err, /Error from server \(Conflict\).*the object has been modified/);
  assert.equal(await ok('create configmap dry --from-literal a=1 --dry-run=server -o name'), 'configmap/dry\n');
  assert.match((await run('get cm dry')).err, /configmaps "dry" not found/);
  await ok('delete namespace shop');
  assert.match((await run('get namespace shop')).err, /namespaces "shop" not found/);
});

test('rollout status and wait follow the status that a controller writes', options, async (t) => {
  const { ok, api, start } = await startKubectl(t);
  await ok('apply -f -', web(2));
  const rollout = start('rollout status deploy/web --timeout 20s').lines;
  assert.match(String((await rollout.next()).value), /Waiting for deployment (spec update to be observed|"web" rollout to finish)/);
  const write = (ready: number): void => {
    const deployment = structuredClone(api.store.get('Deployment', 'web', 'default')) ?? assert.fail('no deployment');
    const conditions = [{ type: 'Available', status: ready === 2 ? 'True' : 'False', reason: 'x', message: '' }];
    api.store.updateStatus({
      ...deployment,
      status: { observedGeneration: 1, replicas: 2, updatedReplicas: 2, readyReplicas: ready, availableReplicas: ready, conditions },
    });
  };
  write(1);
  for (let line = ''; !line.includes('1 of 2 updated replicas are available'); line = String((await rollout.next()).value))
    assert.doesNotMatch(line, /error/);
  const waited = ok('wait deploy/web --for condition=Available --timeout 20s');
  write(2);
  for (let line = ''; !line.includes('successfully rolled out'); line = String((await rollout.next()).value))
    assert.doesNotMatch(line, /error/);
  assert.equal(await waited, 'deployment.apps/web condition met\n');
});

test('get -w shows changes as they come', options, async (t) => {
  const { ok, start } = await startKubectl(t);
  const { lines } = start('get configmaps -w -o name -l shown=yes');
  await new Promise((resolve) => setTimeout(resolve, 300));
  await ok('create configmap hidden');
  await ok('create -f -', 'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: shown, labels: { shown: "yes" } }\n');
  assert.equal((await lines.next()).value, 'configmap/shown');
  const table = start('get configmaps -w -l shown=yes').lines;
  assert.deepEqual(columns(String((await table.next()).value))[0], ['NAME', 'DATA', 'AGE']);
  assert.deepEqual(columns(String((await table.next()).value))[0]?.slice(0, 2), ['shown', '0']);
  await ok(`patch configmap shown --type merge -p {"data":{"a":"1"}}`);
  assert.deepEqual(columns(String((await table.next()).value))[0]?.slice(0, 2), ['shown', '1']);
});

test('a deletion cascades, waits for finalizers, and orphans when told to', options, async (t) => {
  const { ok, api, run } = await startKubectl(t);
  await ok('apply -f -', web(1));
  const owner = api.store.get('Deployment', 'web', 'default') ?? assert.fail('no deployment');
  const reference = { apiVersion: 'apps/v1', kind: 'Deployment', name: 'web', uid: owner.metadata.uid ?? '', blockOwnerDeletion: true };
  const dependent = (name: string): void =>
    void api.store.create({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace: 'default', ownerReferences: [reference] } });
  dependent('one');
  await ok('delete deploy web --cascade=orphan');
  assert.equal(await ok("get cm one -o jsonpath='{.metadata.ownerReferences}'"), '');
  await ok('apply -f -', web(1));
  reference.uid = api.store.get('Deployment', 'web', 'default')?.metadata.uid ?? '';
  dependent('two');
  await ok('delete deploy web --cascade=foreground');
  assert.match((await run('get cm two')).err, /not found/);
  await ok(`patch cm one --type merge -p {"metadata":{"finalizers":["example.com/hold"]}}`);
  assert.equal((await run('delete cm one --timeout 1s')).code, 1);
  await ok(`patch cm one --type merge -p {"metadata":{"finalizers":null}}`);
  assert.match((await run('get cm one')).err, /not found/);
  await ok('create cm a');
  await ok('delete cm --field-selector metadata.name=a');
  assert.equal(await ok('get cm -o name'), 'configmap/kube-root-ca.crt\n');
});

test('logs, exec and port-forward reach the pod, over WebSockets and over SPDY', options, async (t) => {
  const fixture = await startKubectl(t);
  const { ok, run, start } = fixture;
  await runningPod(fixture, 'p');
  assert.deepEqual(columns(await ok('get pod p -o wide'))[1]?.slice(0, 4), ['p', '1/1', 'Running', '0']);
  assert.equal(await ok('logs p --tail 1'), 'line 2 of p/app\n');
  assert.equal(await ok('logs -f p'), 'line 0 of p/app\nline 1 of p/app\nline 2 of p/app\n');
  assert.match((await run('logs p -c other')).err, /container other is not valid for pod p/);

  const content = randomBytes(300_000).toString('base64');
  const digest = createHash('sha256').update(content).digest('hex');
  const server = http.createServer((_request, response) => response.end(content));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;

  for (const webSockets of ['true', 'false']) {
    const env = { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: webSockets, KUBECTL_PORT_FORWARD_WEBSOCKETS: webSockets };
    const failed = await run("exec p -- sh -c 'echo out; echo err >&2; exit 3'", { env });
    assert.deepEqual([failed.code, failed.out, failed.err], [3, 'out\n', 'err\ncommand terminated with exit code 3\n']);
    assert.equal((await run('exec -i p -- sha256sum', { env, input: content })).out, `${digest}  -\n`);
    assert.match((await run('exec p -- no-such-command', { env })).err, /ENOENT/);
    const forward = start(`port-forward pod/p :${port}`, env);
    const local = Number(/127.0.0.1:(\d+)/.exec(String((await forward.lines.next()).value))?.[1]);
    for (let i = 0; i < 2; i++) assert.equal(await (await fetch(`http://127.0.0.1:${local}/`)).text(), content);
    forward.kill();
  }
  assert.equal(await ok(`get --raw /api/v1/namespaces/default/pods/p:${port}/proxy/x`), content);
});

test('malformed manifests are refused with the field that is wrong', options, async (t) => {
  const { run } = await startKubectl(t);
  const refusal = async (manifest: string, flags = ''): Promise<string> => {
    const { code, err } = await run(`apply ${flags} -f -`, { input: manifest });
    assert.equal(code, 1, manifest);
    return err;
  };
  assert.match(await refusal(web(2).replace('replicas: 2', 'replicas: two')), /spec.replicas: expected integer, found "two"/);
  assert.match(await refusal(web(2).replace('replicas: 2', 'replica: 2')), /strict decoding error: unknown field "spec.replica"/);
  assert.match(
    await refusal(web(2).replace('name: web,', 'name: Web_1,')),
    /The Deployment "Web_1" is invalid: metadata.name: Invalid value: "Web_1"/,
  );
  assert.match(
    await refusal(web(2).replace('containerPort: 8080', 'containerPort: 80800')),
    /containerPort: Invalid value: 80800: must be between 1 and 65535/,
  );
  assert.match(
    await refusal(web(2).replace('matchLabels: { app: web }', 'matchLabels: { app: api }')),
    /`selector` does not match template `labels`/,
  );
  assert.match(
    await refusal(web(2).replace('kind: Deployment', 'kind: Deploymint')),
    /no matches for kind "Deploymint" in version "apps\/v1"/,
  );
  const policy = 'apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: p }\nspec: { action: PERMIT }\n';
  assert.match(await refusal(policy), /spec.action: Unsupported value: "PERMIT": supported values: "ALLOW"/);
  assert.match(await refusal(policy, '--server-side'), /spec.action: Unsupported value: "PERMIT"/);
  const warned = await run('apply --validate=warn -f -', { input: web(2).replace('replicas: 2', 'replica: 2') });
  assert.match(warned.err, /Warning: unknown field "spec.replica"/);
});

const CRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: widgets.example.com }
spec:
  group: example.com
  scope: Namespaced
  names: { kind: Widget, plural: widgets, shortNames: [wd] }
  versions:
  - name: v1
    served: true
    storage: true
    subresources: { status: {}, scale: { specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas } }
    additionalPrinterColumns: [{ name: Size, type: integer, jsonPath: .spec.size }]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties: { size: { type: integer, minimum: 1, description: how large }, replicas: { type: integer, default: 1 } }
          status: { type: object, properties: { replicas: { type: integer } } }
`;

test('a CustomResourceDefinition is served as soon as it is applied', options, async (t) => {
  const { ok, run } = await startKubectl(t);
  await ok('apply -f -', CRD);
  await ok('wait --for condition=Established crd/widgets.example.com --timeout 5s');
  const widget = (size: number): string => `apiVersion: example.com/v1\nkind: Widget\nmetadata: { name: w }\nspec: { size: ${size} }\n`;
  assert.match((await run('apply -f -', { input: widget(0) })).err, /The Widget "w" is invalid: spec.size: Invalid value: 0: must be >= 1/);
  assert.equal(await ok('apply -f -', widget(3)), 'widget.example.com/w created\n');
  assert.equal(await ok('apply -f -', widget(4)), 'widget.example.com/w configured\n');
  assert.deepEqual(columns(await ok('get wd')), [
    ['NAME', 'SIZE'],
    ['w', '4'],
  ]);
  await ok('scale wd w --replicas 3');
  assert.equal(await ok("get wd w -o jsonpath='{.spec.replicas}'"), '3');
  assert.match(await ok('explain widget.spec.size'), /how large/);
  await ok('delete crd widgets.example.com');
  assert.match((await run('get wd')).err, /doesn't have a resource type "wd"|could not find the requested resource/);
});

test('tokens, reviews and access: a service account is who it is, and nobody is nobody', options, async (t) => {
  const { ok, run, api, url } = await startKubectl(t);
  const token = (await ok('create token default --audience istio-ca --duration 20m')).trim();
  const review = (audience: string): Promise<string> =>
    ok(
      'create -f - -o json',
      JSON.stringify({
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenReview',
        metadata: { name: 'x' },
        spec: { token, audiences: [audience] },
      }),
    );
  assert.match(await review('istio-ca'), /"username": "system:serviceaccount:default:default"/);
  assert.match(await review('other'), /"authenticated": false/);
  assert.match(await ok('auth whoami'), /kubernetes-admin/);
  assert.equal(await ok('auth can-i create pods'), 'yes\n');
  const own = api.issueToken({ namespace: 'default', serviceAccount: 'default' });
  const as = (bearer: string): Promise<{ code: number; out: string; err: string }> =>
    run(`--kubeconfig /dev/null --server ${url} --insecure-skip-tls-verify --token ${bearer} get ns -o name`);
  assert.match((await as(own)).out, /namespace\/default/);
  assert.match((await as(token)).err, /Unauthorized|must be logged in/);
  assert.match((await as('nonsense')).err, /Unauthorized|must be logged in/);
});

/** A Service `name` whose only endpoint is the pod `p` of node `n1`, on `port`. */
const backed = (name: string, port: number): string =>
  [
    `apiVersion: v1\nkind: Service\nmetadata: { name: ${name} }\nspec: { ports: [{ name: http, port: 443, targetPort: ${port} }] }`,
    `apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: { name: ${name}-1, labels: { kubernetes.io/service-name: ${name} } }`,
    `addressType: IPv4\nports: [{ name: http, port: ${port} }]`,
    'endpoints: [{ addresses: [10.1.2.3], conditions: { ready: true }, targetRef: { kind: Pod, name: p, namespace: default } }]',
  ]
    .join('\n')
    .replace('\napiVersion: discovery', '\n---\napiVersion: discovery');

test('a service is reached through its pod, by the proxy and by webhooks', options, async (t) => {
  const fixture = await startKubectl(t);
  const { ok, run } = fixture;
  await runningPod(fixture, 'p');
  const plain = http.createServer((request, response) =>
    response.end(`${request.method} ${request.url} ${request.headers.authorization ?? 'no token'}`),
  );
  const { caPem, keyPem, certificatePem } = createServingCertificate(['hooks.default.svc'], Date.now());
  const secure = https.createServer({ key: keyPem, cert: certificatePem }, (request, response) => {
    request
      .resume()
      .on('end', () =>
        response.end(JSON.stringify({ response: { allowed: false, status: { message: `no, says ${request.url}`, code: 403 } } })),
      );
  });
  const ports = await Promise.all(
    [plain, secure].map(async (server) => {
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      t.after(() => server.close());
      return (server.address() as AddressInfo).port;
    }),
  );
  await ok('apply -f -', backed('web', ports[0] ?? 0));
  assert.equal(await ok('get --raw /api/v1/namespaces/default/services/web:http/proxy/a?b=c'), 'GET /a?b=c no token');
  assert.match((await run('get --raw /api/v1/namespaces/default/services/web:other/proxy/')).err, /has no port other/);
  await ok('apply -f -', backed('hooks', ports[1] ?? 0));
  const service = { name: 'hooks', namespace: 'default', path: '/judge' };
  const webhook = {
    name: 'judge.example.com',
    clientConfig: { service, caBundle: Buffer.from(caPem).toString('base64') },
    rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['DELETE'], resources: ['configmaps'] }],
    sideEffects: 'None',
    admissionReviewVersions: ['v1'],
  };
  await ok(
    'apply -f -',
    JSON.stringify({
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'ValidatingWebhookConfiguration',
      metadata: { name: 'judge' },
      webhooks: [webhook],
    }),
  );
  await ok('create configmap m');
  assert.match((await run('delete configmap m')).err, /admission webhook "judge.example.com" denied the request: no, says \/judge/);
});

test('admission webhooks change, refuse and warn; a missing one follows its failure policy', options, async (t) => {
  const { ok, run } = await startKubectl(t);
  const { caPem, keyPem, certificatePem } = createServingCertificate(['127.0.0.1'], Date.now());
  const asked: { operation: string; name: string; userInfo: { username: string } }[] = [];
  const server = https.createServer({ key: keyPem, cert: certificatePem }, (request, response) => {
    let body = '';
    request.on('data', (chunk) => {
      body += String(chunk);
    });
    request.on('end', () => {
      const { request: review } = JSON.parse(body) as {
        request: { uid: string; operation: string; name: string; userInfo: { username: string }; object: KubeObject };
      };
      asked.push(review);
      const bad = review.object?.metadata.labels?.bad !== undefined;
      const patch = Buffer.from(JSON.stringify([{ op: 'add', path: '/data', value: { added: 'yes' } }])).toString('base64');
      const answer = request.url === '/mutate' ? { patch, patchType: 'JSONPatch', warnings: ['mind the gap'] } : {};
      response.end(
        JSON.stringify({
          apiVersion: 'admission.k8s.io/v1',
          kind: 'AdmissionReview',
          response: { uid: review.uid, allowed: !bad, status: { message: 'bad is bad' }, ...answer },
        }),
      );
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const configuration = (kind: string, path: string, more: object = {}): string =>
    JSON.stringify({
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: `${kind}WebhookConfiguration`,
      metadata: { name: kind.toLowerCase() },
      webhooks: [
        {
          name: `${kind.toLowerCase()}.example.com`,
          clientConfig: { url: `https://127.0.0.1:${port}${path}`, caBundle: Buffer.from(caPem).toString('base64') },
          rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE', 'UPDATE'], resources: ['configmaps'] }],
          sideEffects: 'None',
          admissionReviewVersions: ['v1'],
          namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'default' } },
          ...more,
        },
      ],
    });
  await ok('apply -f -', configuration('Mutating', '/mutate'));
  await ok('apply -f -', configuration('Validating', '/validate'));
  const made = await run('create configmap m');
  assert.match(made.err, /Warning: mind the gap/);
  assert.equal(await ok("get cm m -o jsonpath='{.data.added}'"), 'yes');
  assert.deepEqual(
    asked.map(({ operation, name, userInfo }) => `${operation} ${name} ${userInfo.username}`),
    ['CREATE m kubernetes-admin', 'CREATE m kubernetes-admin'],
  );
  assert.match((await run('label configmap m bad=1')).err, /admission webhook "mutating.example.com" denied the request: bad is bad/);
  await ok('create configmap elsewhere -n kube-public');
  assert.equal(asked.length, 3, 'the namespace selector leaves other namespaces alone');
  await ok('delete mutatingwebhookconfiguration mutating');
  await ok('apply -f -', configuration('Validating', '/validate', { clientConfig: { url: 'https://127.0.0.1:1/x' } }));
  assert.match((await run('create configmap n')).err, /failed calling webhook "validating.example.com": connect ECONNREFUSED/);
  await ok(
    'apply -f -',
    configuration('Validating', '/validate', { clientConfig: { url: 'https://127.0.0.1:1/x' }, failurePolicy: 'Ignore' }),
  );
  await ok('create configmap n');
});
