import assert from 'node:assert/strict';
import { test } from 'node:test';
import { minutes, seconds } from '../../../common/base/clock.ts';
import { TokenReviewer } from '../../../istiod-lite/access/token-review.ts';
import { FakeClock } from '../../support/fake-clock.ts';

type Status = Record<string, unknown>;
const ZTUNNEL: Status = {
  authenticated: true,
  audiences: ['istio-ca'],
  user: {
    username: 'system:serviceaccount:istio-system:ztunnel',
    groups: ['system:serviceaccounts', 'system:authenticated'],
    extra: { 'authentication.kubernetes.io/pod-name': ['zt'], 'authentication.kubernetes.io/pod-uid': ['z1'] },
  },
};

function start(answer: (token: string) => Status | Promise<Status>) {
  const clock = new FakeClock();
  const asked: string[] = [];
  const outcomes: string[] = [];
  const create = async <T>(_path: string, body: unknown): Promise<T> => {
    const { token } = (body as { spec: { token: string } }).spec;
    asked.push(token);
    return { status: await answer(token) } as T;
  };
  const reviewer = new TokenReviewer({
    api: { create },
    audiences: ['istio-ca'],
    clock,
    reviewed: (outcome) => void outcomes.push(outcome),
  });
  return { clock, asked, outcomes, reviewer };
}

test('a good token says whose it is and which pod it is bound to', async () => {
  const { reviewer } = start(() => ZTUNNEL);
  assert.deepEqual(await reviewer.review('t'), {
    caller: { namespace: 'istio-system', serviceAccount: 'ztunnel', podName: 'zt', podUid: 'z1' },
  });
});

test('answers are kept for a minute, refusals for five seconds', async () => {
  const { clock, asked, reviewer } = start((token) => (token === 'good' ? ZTUNNEL : { authenticated: false, error: 'no' }));
  for (const _ of [1, 2, 3]) await reviewer.review('good');
  for (const _ of [1, 2, 3]) await reviewer.review('bad');
  assert.deepEqual(asked, ['good', 'bad']);
  await clock.advance(seconds(6));
  await reviewer.review('bad');
  await reviewer.review('good');
  assert.deepEqual(asked, ['good', 'bad', 'bad']);
  await clock.advance(seconds(60));
  await reviewer.review('good');
  assert.deepEqual(asked, ['good', 'bad', 'bad', 'good']);
});

test('a token is not believed beyond its own expiry', async () => {
  const { clock, asked, reviewer } = start(() => ZTUNNEL);
  const claims = Buffer.from(JSON.stringify({ exp: clock.now() / 1000 + 10 })).toString('base64url');
  const token = `x.${claims}.y`;
  await reviewer.review(token);
  await clock.advance(seconds(9));
  await reviewer.review(token);
  await clock.advance(seconds(2));
  await reviewer.review(token);
  assert.equal(asked.length, 2);
});

test('the same token is asked about once at a time, and sixteen different ones', async () => {
  const waiting: (() => void)[] = [];
  const { asked, reviewer } = start(() => new Promise((resolve) => waiting.push(() => resolve(ZTUNNEL))));
  const answers = Array.from({ length: 40 }, (_, i) => reviewer.review(`t${i % 20}`));
  await Promise.resolve();
  assert.equal(asked.length, 16);
  for (let i = 0; i < 20; i++) {
    await new Promise((resolve) => setImmediate(resolve));
    waiting[i]?.();
  }
  await Promise.all(answers);
  assert.equal(asked.length, 20);
});

test('what is no service account, or for somebody else, is refused with the reason', async () => {
  const reason = async (status: Status): Promise<string> => {
    const verdict = await start(() => status).reviewer.review('t');
    return 'refuse' in verdict ? verdict.refuse : 'accepted';
  };
  assert.equal(await reason({}), 'the token is not valid');
  assert.equal(await reason({ authenticated: false, error: 'token has expired' }), 'token has expired');
  assert.equal(await reason({ ...ZTUNNEL, audiences: undefined }), 'the token is not for istio-ca');
  assert.equal(await reason({ ...ZTUNNEL, audiences: ['api'] }), 'the token is not for istio-ca');
  assert.equal(await reason({ ...ZTUNNEL, user: { username: 'kube-admin', groups: [] } }), 'kube-admin is no service account');
  assert.equal(
    await reason({ ...ZTUNNEL, user: { username: 'system:serviceaccount:a:b', groups: [] } }),
    'system:serviceaccount:a:b is no service account',
  );
  assert.match(
    await reason({ ...ZTUNNEL, user: { username: 'system:serviceaccount:a', groups: ['system:serviceaccounts'] } }),
    /is no service account/,
  );
});

test('an API server that fails is not remembered', async () => {
  let fail = true;
  const { reviewer, outcomes } = start(() => {
    if (fail) throw new Error('connection refused');
    return ZTUNNEL;
  });
  await assert.rejects(reviewer.review('t'), /connection refused/);
  fail = false;
  assert.ok('caller' in (await reviewer.review('t')));
  assert.deepEqual(outcomes, ['failed', 'accepted']);
});

test('a flood of different tokens is bounded', async () => {
  const { reviewer } = start(() => new Promise(() => undefined));
  const answers = Array.from({ length: 2017 }, (_, i) => reviewer.review(`t${i}`));
  await assert.rejects(answers.at(-1) ?? Promise.resolve(), /too many tokens/);
});

test('where the API server is away, what it said within a quarter of an hour is good; what it never said is not', async () => {
  let away = false;
  const { clock, reviewer } = start((token) => {
    if (away) throw new Error('connection refused');
    return token === 'good' ? ZTUNNEL : { authenticated: false, error: 'no' };
  });
  await reviewer.review('good');
  await reviewer.review('bad');
  away = true;
  await clock.advance(minutes(10));
  assert.ok('caller' in (await reviewer.review('good')));
  await assert.rejects(reviewer.review('bad'), /connection refused/);
  await assert.rejects(reviewer.review('new'), /connection refused/);
  await clock.advance(minutes(6));
  await assert.rejects(reviewer.review('good'), /connection refused/);
});

test('a refusal is no absence: a token that the API server does not know any more is not believed', async () => {
  let known = true;
  const { clock, reviewer } = start(() => (known ? ZTUNNEL : { authenticated: false, error: 'deleted' }));
  await reviewer.review('t');
  known = false;
  await clock.advance(minutes(2));
  assert.deepEqual(await reviewer.review('t'), { refuse: 'deleted' });
});
