/** Chapters of the story: what a waypoint asks of those who call, and what it does with a backend that fails. */
import { generateKeyPairSync, sign } from 'node:crypto';
import { expect } from './checks.ts';
import type { Narrator } from './narrator.ts';
import type { Shop } from './shop.ts';

const ISSUER = 'https://issuer.example';

/** Requests of end users bring tokens: good ones pass, bad ones and none do not. */
export async function tokens(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('Tokens: who orders has to bring a good one');
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const jwks = JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'demo', alg: 'ES256' }] });
  const objects = `apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: { name: orders-tokens, namespace: shop }
spec:
  targetRefs: [{ kind: Service, group: "", name: orders }]
  jwtRules: [{ issuer: "${ISSUER}", jwks: '${jwks}', outputClaimToHeaders: [{ header: x-user, claim: sub }] }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: orders-need-tokens, namespace: shop }
spec:
  targetRefs: [{ kind: Service, group: "", name: orders }]
  action: DENY
  rules: [{ from: [{ source: { notRequestPrincipals: ["*"] } }] }]
`;
  await shop.apply(objects);
  narrator.command('kubectl apply -f - <<< "kind: RequestAuthentication, and DENY to whoever has no token"');
  const token = (subject: string): string => {
    const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${part({ alg: 'ES256', kid: 'demo' })}.${part({ iss: ISSUER, sub: subject, exp: Math.floor(Date.now() / 1000) + 3600 })}`;
    return `${signed}.${sign('sha256', Buffer.from(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  };
  const ask = async (bearer?: string): Promise<string> =>
    (await shop.call('shop', 'frontend', 'http://orders/', ...(bearer === undefined ? [] : ['-H', `authorization:Bearer ${bearer}`])))
      .stdout;
  await answered(shop, 403, () => ask());
  narrator.ok('without a token: 403');
  const good = token('ann');
  const forged = `${good.slice(0, good.lastIndexOf('.'))}.${token('bob').split('.')[2]}`;
  narrator.saw(told(await answered(shop, 401, () => ask(forged))));
  narrator.ok('with a forged one: 401');
  const served = await answered(shop, 200, () => ask(good));
  expect(/RequestHeader=x-user:ann/i.test(served), `the application is not told whose token it is: ${served}`);
  narrator.ok('with a good one: 200, and the application is told whose it is (x-user: ann)');
  await shop.must('delete', '-n', 'shop', 'requestauthentication/orders-tokens', 'authorizationpolicy/orders-need-tokens');
}

/** So many requests for each caller, and no more. */
export async function limited(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('A rate limit: five requests in an hour for each caller, at each replica of the waypoint');
  await shop.apply(`apiVersion: warren.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: few, namespace: shop }
spec:
  targetRefs: [{ group: "", kind: Service, name: flaky }]
  limits: [{ name: each-caller, requests: 5, per: 1h, by: [source.principal] }]
`);
  narrator.command('kubectl apply -f - <<< "kind: RateLimitPolicy, target Service flaky, requests: 5, per: 1h, by: [source.principal]"');
  narrator.saw(told(await answered(shop, 429, async () => (await shop.call('shop', 'frontend', 'http://flaky/')).stdout)));
  narrator.ok('the next one is 429, and says when to come again and why');
  await shop.must('delete', '-n', 'shop', 'ratelimitpolicy/few');
  await answered(shop, 200, async () => (await shop.call('shop', 'frontend', 'http://flaky/')).stdout);
  narrator.ok('without the policy it is served again');
}

/** An endpoint that fails is left alone for a while. */
export async function ejected(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('A backend that keeps failing is put aside, and comes back');
  await shop.apply(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: flaky, namespace: shop }
spec:
  host: flaky.shop.svc.cluster.local
  trafficPolicy:
    outlierDetection: { consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 3s, maxEjectionPercent: 100 }
`);
  narrator.command('kubectl apply -f - <<< "kind: DestinationRule, outlierDetection: three errors in a row"');
  let seen = '';
  await narrator.during(
    'after three errors it is asked no more',
    shop.eventually(
      async () => {
        seen = (await shop.call('shop', 'frontend', 'http://flaky/status/500', '--count=20')).stdout;
        return seen.includes('code=NO_HEALTHY_UPSTREAM');
      },
      () => `nobody put the failing backend aside: ${seen}`,
    ),
  );
  narrator.saw(seen.split('\n').find((line) => line.includes('NO_HEALTHY_UPSTREAM')) ?? '');
  await narrator.during(
    'when its time is over it is served by again',
    answered(shop, 200, async () => (await shop.call('shop', 'frontend', 'http://flaky/')).stdout).then(() => undefined),
  );
  await shop.must('delete', '-n', 'shop', 'destinationrule/flaky');
}

async function answered(shop: Shop, status: number, ask: () => Promise<string>): Promise<string> {
  let seen = '';
  await shop.eventually(
    async () => {
      seen = await ask();
      return seen.includes(`StatusCode=${status}`);
    },
    () => `the answer is not ${status} but: ${seen || 'nothing'}`,
  );
  return seen;
}

const told = (answer: string): string =>
  answer
    .split('\n')
    .filter((line) => /StatusCode|x-warren-refusal|ratelimit|retry-after|www-authenticate/i.test(line))
    .join('\n');
