/**
 * What `meshctl explain` predicts is what happens: policies made at random (EXPLAIN_SEED, EXPLAIN_CASES), every pair of pods that could call
 * each other, the prediction first and then the call. Where a policy is named as the one that refused, taking it away turns the outcome.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KubeApi } from '../../common/client/kube-api.ts';
import { type Explanation, explain, overall } from '../../meshctl/explain/explanation.ts';
import { placeOf, proxiesOf } from '../../meshctl/explain/proxies.ts';
import { Istiod } from '../../meshctl/istiod.ts';
import { startPlayground, withoutPlayground } from '../support/playground.ts';

const CASES = Number(process.env.EXPLAIN_CASES ?? 12);
const SEED = Number(process.env.EXPLAIN_SEED ?? (process.env.CI ? 1 : Date.now() % 1_000_000));

const pod = (namespace: string, name: string, node: string): string => `
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: ${name}, namespace: ${namespace} }
---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace}, labels: { app: ${name} } }
spec:
  nodeName: ${node}
  serviceAccountName: ${name}
  terminationGracePeriodSeconds: 1
  containers: [{ name: echo, image: warren/echo, args: ["--port=8080", "--port=8081"] }]
---
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: ${namespace} }
spec: { selector: { app: ${name} }, ports: [{ name: http, port: 80, targetPort: 8080 }, { name: more, port: 81, targetPort: 8081 }] }
`;

const MANIFEST = `
apiVersion: v1
kind: Namespace
metadata: { name: one, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: Namespace
metadata: { name: two, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: Namespace
metadata: { name: plain }
${pod('one', 'a', 'node1')}${pod('one', 'b', 'node2')}${pod('two', 'c', 'node2')}${pod('plain', 'd', 'node1')}
`;

const CALLERS = ['one/a', 'two/c', 'plain/d'];
const TARGETS = ['b.one:80', 'b.one:81', 'c.two:80', 'd.plain:80'];

test('what explain predicts is what happens', { skip: withoutPlayground, timeout: 180_000 + CASES * 30_000 }, async (t) => {
  const cluster = await startPlayground(t, { mesh: true });
  await cluster.apply(MANIFEST);
  for (const namespace of ['one', 'two', 'plain']) await cluster.podsReady(namespace);
  const api = KubeApi.load({ kubeconfig: cluster.kubeconfig, env: {} });
  const istiod = await Istiod.open(api, 'istio-system');
  t.after(() => {
    istiod.close();
    api.close();
  });
  const proxies = await proxiesOf(api, istiod, 'istio-system');
  const predict = async (caller: string, target: string): Promise<Explanation> => {
    const [namespace = '', name = ''] = caller.split('/');
    const [host = '', port] = target.split(':');
    return explain(
      { namespace, pod: name, host, port: Number(port), request: { method: 'GET', path: '/', headers: [] } },
      await placeOf(api, namespace, name),
      proxies,
    );
  };
  const call = async (caller: string, target: string): Promise<boolean> => {
    const [namespace = '', name = ''] = caller.split('/');
    return (await cluster.exec(namespace, name, 'client', `http://${target}/`)).stdout.includes('StatusCode=200');
  };
  /** Both ztunnels act by exactly these policies of `two` and `one`. */
  const settled = (wanted: readonly string[]): Promise<void> =>
    cluster.eventually(
      `the ztunnels know ${wanted.join(', ') || 'no policy'}`,
      async () => {
        const seen = await Promise.all(['b.one:80', 'c.two:80'].map((target) => predict('plain/d', target)));
        const known = seen.flatMap(({ ways }) => ways.flatMap(({ arrival }) => arrival?.policies.map(({ policy }) => policy) ?? []));
        return JSON.stringify([...new Set(known)].sort()) === JSON.stringify([...wanted].sort());
      },
      60_000,
    );
  await cluster.eventually(
    'the pods are in the mesh',
    async () => (await predict('one/a', 'b.one:80')).ways[0]?.route.via === 'hbone',
    60_000,
  );

  const random = draws(SEED);
  let refusals = 0;
  for (let number = 1; number <= CASES; number++) {
    const made = randomPolicies(random);
    await t.test(`case ${number} of seed ${SEED}`, async () => {
      await cluster.kubectl('delete', 'authorizationpolicy,peerauthentication', '--all', '-A');
      if (made.length > 0) await cluster.apply(made.map(({ yaml }) => yaml).join(''));
      await settled(made.map(({ key }) => key));
      const pairs = CALLERS.flatMap((caller) => TARGETS.map((target) => ({ caller, target })));
      const compare = async ({ caller, target }: { caller: string; target: string }): Promise<void> => {
        const explained = await predict(caller, target);
        const predicted = overall(explained);
        const happened = (await call(caller, target)) ? 'delivered' : 'refused';
        assert.equal(
          predicted,
          happened,
          `${caller} to ${target}: ${JSON.stringify(explained.ways)}\n${made.map(({ yaml }) => yaml).join('')}`,
        );
        if (happened === 'refused') refusals++;
      };
      await Promise.all(pairs.map(compare));
    });
  }
  assert.ok(refusals > 0, 'a generator that refuses nothing shows nothing');
});

interface Made {
  /** As ztunnel names it. */
  readonly key: string;
  readonly yaml: string;
}

/** Up to three AuthorizationPolicies, and perhaps STRICT, each with parts that L4 can judge. */
function randomPolicies(random: () => number): Made[] {
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)] as T;
  const count = Math.floor(random() * 4);
  const made = Array.from({ length: count }, (_, i): Made => {
    const [namespace, app] = pick([['one', 'b'] as const, ['two', 'c'] as const]);
    const selector = random() < 0.5 ? `selector: { matchLabels: { app: ${app} } }` : '';
    const from = pick([
      '',
      'from: [{ source: { principals: [cluster.local/ns/one/sa/a] } }]',
      'from: [{ source: { namespaces: [two] } }]',
      'from: [{ source: { notPrincipals: ["*"] } }]',
      'from: [{ source: { notNamespaces: [one] } }]',
    ]);
    const to = pick(['', 'to: [{ operation: { ports: ["8080"] } }]', 'to: [{ operation: { notPorts: ["8080"] } }]']);
    const rule = [from, to].filter((part) => part !== '').join(', ');
    return {
      key: `${namespace}/p${i}`,
      yaml: `
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p${i}, namespace: ${namespace} }
spec: { ${[selector, `action: ${pick(['ALLOW', 'DENY'])}`, `rules: [{ ${rule} }]`].filter((part) => part !== '').join(', ')} }
`,
    };
  });
  if (random() < 0.3) {
    made.push({
      key: 'istio-system/istio_converted_static_strict',
      yaml: `
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: istio-system }
spec: { mtls: { mode: STRICT } }
`,
    });
  }
  return made;
}

/** mulberry32: small, and the same everywhere. */
function draws(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
