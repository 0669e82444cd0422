/** The second half of the story: a waypoint for the namespace, and what it can say about HTTP. */
import { expect, mustAnswer } from './checks.ts';
import { ejected, limited, tokens } from './guards.ts';
import { type Narrator, StepFailed } from './narrator.ts';
import type { Shop } from './shop.ts';
import { traced } from './tracing.ts';

const SPLIT_REQUESTS = 200;

export async function waypointStory(shop: Shop, narrator: Narrator): Promise<void> {
  await deploy(shop, narrator);
  await split(shop, narrator);
  await methods(shop, narrator);
  await traced(shop, narrator);
  await retried(shop, narrator);
  await tokens(shop, narrator);
  await limited(shop, narrator);
  await ejected(shop, narrator);
  await killed(shop, narrator);
  await removed(shop, narrator);
}

async function deploy(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('A waypoint: L7 for the namespace, by one command');
  narrator.command('scripts/meshctl waypoint apply -n shop --enroll-namespace');
  const applied = await narrator.during(
    'the waypoint is ready and the namespace is bound to it',
    shop.meshctl('waypoint', 'apply', '-n', 'shop', '--enroll-namespace'),
  );
  expect(applied.code === 0, `meshctl waypoint apply failed: ${applied.stderr}${applied.stdout}`);
  narrator.saw((await shop.meshctl('waypoint', 'list', '-n', 'shop')).stdout);
  await shop.eventually(
    async () => (await shop.call('shop', 'frontend', 'http://orders/')).stdout.toLowerCase().includes('requestheader=x-request-id'),
    () => 'requests to orders do not go through the waypoint',
  );
  narrator.ok('requests to orders go through it now, and nothing was restarted');
}

async function split(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('90 of 100 requests to the old orders, 10 to the new; a header picks the new one');
  await shop.apply(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: orders, namespace: shop }
spec:
  parentRefs: [{ group: "", kind: Service, name: orders, port: 80 }]
  rules:
    - matches: [{ headers: [{ name: x-version, value: new }] }]
      backendRefs: [{ name: orders-v2, port: 80 }]
    - backendRefs: [{ name: orders-v1, port: 80, weight: 90 }, { name: orders-v2, port: 80, weight: 10 }]
`);
  narrator.command('kubectl apply -f - <<< "kind: HTTPRoute, parent Service orders, weights 90 and 10"');
  await shop.eventually(
    async () =>
      versionsOf((await shop.call('shop', 'frontend', 'http://orders/', '-H', 'x-version:new', '--count=10')).stdout).get('v2') === 10,
    () => 'the header does not pick the new version',
  );
  narrator.ok('with x-version: new, ten of ten go to v2');
  const { stdout } = await shop.call('shop', 'frontend', 'http://orders/', `--count=${SPLIT_REQUESTS}`);
  const versions = versionsOf(stdout);
  const share = (versions.get('v2') ?? 0) / SPLIT_REQUESTS;
  narrator.command(`kubectl exec -n shop deploy/frontend -- client http://orders/ --count=${SPLIT_REQUESTS}`);
  narrator.saw([...versions].map(([version, count]) => `${version}: ${count}`).join(', '));
  // Five standard deviations of 200 requests at 10 %.
  expect(share > 0 && Math.abs(share - 0.1) < 0.107, `v2 has ${share} of the requests, expected about 0.1`);
  narrator.ok('about 10 % go to v2');
}

async function methods(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('Who may do what: the frontend reads orders, and nobody writes');
  await shop.apply(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: orders-read-only, namespace: shop }
spec:
  targetRefs: [{ kind: Service, group: "", name: orders }]
  action: ALLOW
  rules:
    - from: [{ source: { principals: [cluster.local/ns/shop/sa/frontend] } }]
      to: [{ operation: { methods: [GET], paths: ["/*"] } }]
`);
  narrator.command('kubectl apply -f - <<< "kind: AuthorizationPolicy, target Service orders, ALLOW GET to the frontend"');
  const post = await narrator.during('POST is refused', refusedWith(shop, 403, ['shop', 'frontend', 'http://orders/', '--method=POST']));
  narrator.saw(post);
  await narrator.during(
    'another caller is refused',
    refusedWith(shop, 403, ['shop', 'payments', 'http://orders/']).then(() => undefined),
  );
  await mustAnswer(shop, 'shop', 'frontend', 'http://orders/');
  narrator.ok('GET by the frontend is served');
}

async function retried(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('A backend fails twice, and nobody notices');
  await shop.apply(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: flaky, namespace: shop }
spec:
  parentRefs: [{ group: "", kind: Service, name: flaky, port: 80 }]
  rules:
    - retry: { attempts: 3, codes: [503] }
      backendRefs: [{ name: flaky, port: 80 }]
`);
  let attempt = 0;
  await narrator.during(
    'a request whose first two attempts fail is answered with 200',
    shop.eventually(
      async () => {
        const url = `http://flaky/retry/order?uuid=demo-${attempt++}&succeedAfter=2&responseCode=503`;
        return (await shop.call('shop', 'frontend', url)).stdout.includes('StatusCode=200');
      },
      () => 'the request was not retried until it succeeded',
    ),
  );
}

async function killed(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('The waypoint is killed under load, and comes back; what was refused meanwhile is named');
  narrator.command('kubectl delete pods -n shop -l gateway.networking.k8s.io/gateway-name=waypoint --force');
  const outcomes = { served: 0, refused: 0 };
  let stop = false;
  const load = (async () => {
    while (!stop) {
      const { code, stdout } = await shop.call('shop', 'frontend', 'http://orders/');
      if (code === 0 && stdout.includes('StatusCode=200')) outcomes.served++;
      else outcomes.refused++;
    }
  })();
  try {
    await shop.must('delete', 'pods', '-n', 'shop', '-l', 'gateway.networking.k8s.io/gateway-name=waypoint', '--force', '--grace-period=0');
    await shop.eventually(
      () => outcomes.refused > 0,
      () => 'nothing was refused although no waypoint was there',
    );
    await narrator.during(
      'the waypoint is back and serves',
      shop.eventually(
        async () => {
          const before = outcomes.served;
          await new Promise((resolve) => setTimeout(resolve, 500));
          return outcomes.served > before;
        },
        () => 'the waypoint did not come back',
        60_000,
      ),
    );
  } finally {
    stop = true;
    await load;
  }
  narrator.saw(`${outcomes.served} served, ${outcomes.refused} refused, none of them past the policy`);
  const line = await shop.accessLog('node1', ['outbound', 'orders.shop.svc', 'error=']);
  narrator.saw(line);
  narrator.ok("the caller's ztunnel says why each was refused");
}

async function removed(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('The waypoint goes');
  await shop.must('label', 'namespace', 'shop', 'istio.io/use-waypoint-');
  await shop.must('delete', 'httproute,authorizationpolicy,telemetry', '--all', '-n', 'shop');
  const { code, stdout, stderr } = await shop.meshctl('waypoint', 'delete', '-n', 'shop', 'waypoint');
  expect(code === 0, `meshctl waypoint delete failed: ${stderr}`);
  narrator.saw(stdout);
  await shop.eventually(
    async () => (await shop.call('shop', 'payments', 'http://orders/')).stdout.includes('StatusCode=200'),
    () => 'orders is not reached without the waypoint',
  );
  narrator.ok('requests go from ztunnel to ztunnel again');
}

function versionsOf(output: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const [, version = ''] of output.matchAll(/Hostname=orders-(v\d)/g)) counts.set(version, (counts.get(version) ?? 0) + 1);
  return counts;
}

async function refusedWith(shop: Shop, status: number, [namespace = '', deployment = '', ...request]: readonly string[]): Promise<string> {
  let seen = '';
  await shop.eventually(
    async () => {
      seen = (await shop.call(namespace, deployment, ...request)).stdout;
      return seen.includes(`StatusCode=${status}`);
    },
    () => `${namespace}/${deployment} was not answered with ${status} but with: ${seen || 'nothing'}`,
  );
  const told = seen.split('\n').filter((line) => /StatusCode|x-warren-refusal/i.test(line));
  if (!told.some((line) => /x-warren-refusal/i.test(line))) throw new StepFailed(`the refusal carries no reason: ${seen}`);
  return told.join('\n');
}
