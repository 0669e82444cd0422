/**
 * What `meshctl explain` predicts is what happens: configurations made at random (EXPLAIN_SEED, EXPLAIN_CASES), many at once in namespaces of
 * their own, the prediction first and then the call. Where policies are named as those that refuse, taking all of them away turns the outcome.
 * What was recorded is then rehearsed: with those policies deleted, a rehearsal says what came of deleting them.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KubeApi } from '../../common/client/kube-api.ts';
import type { PolicySeen } from '../../common/decision/explain.ts';
import type { Decision } from '../../common/decision/journal.ts';
import { type Explanation, explain, type Verdict, type Way } from '../../meshctl/explain/explanation.ts';
import { placeOf, proxiesOf } from '../../meshctl/explain/proxies.ts';
import { Istiod } from '../../meshctl/istiod.ts';
import { type Rehearsal, together } from '../../meshctl/rehearse/rehearsal.ts';
import type { Companion } from '../support/kube-exec.ts';
import { nodeInPods, startPlayground, withoutPlayground } from '../support/playground.ts';
import { type Configuration, namespacesOf, type RandomCall, randomConfiguration, worldYaml } from '../support/random-configurations.ts';
import { draws } from '../support/seeded-random.ts';

const CASES = Number(process.env.EXPLAIN_CASES ?? 50);
const SEED = Number(process.env.EXPLAIN_SEED ?? (process.env.CI ? 1 : Date.now() % 1_000_000));
/** Tried at once. */
const NAMESPACES = namespacesOf(Number(process.env.EXPLAIN_NAMESPACES ?? 10));
const WITH_WAYPOINT = 4;
const LAST = NAMESPACES.at(-1) ?? '';
const ROUNDS = Math.ceil(CASES / NAMESPACES.length);

/** What each round makes anew. */
const ROUND_KINDS = 'authorizationpolicy,peerauthentication,requestauthentication,httproute,virtualservice,destinationrule';

/** Runs in a pod: makes the calls of each line, and prints what came of each. */
const CALLS = `
const http = require('node:http');
const one = ({ target, method, path, headers }) => new Promise((resolve) => {
  const [host, port] = target.split(':');
  const request = http.request({ host, port, path, method, headers: { host: port === '80' ? host : target, ...headers }, agent: false, timeout: 5000 }, (response) => {
    response.on('error', () => resolve('error')).resume();
    response.on('end', () => resolve(response.statusCode === 200 ? 'delivered' : String(response.statusCode)));
  });
  request.on('timeout', () => request.destroy(new Error('timeout')));
  request.on('error', () => resolve('error'));
  request.end();
});
require('node:readline').createInterface({ input: process.stdin })
  .on('line', async (line) => console.log(JSON.stringify(await Promise.all(JSON.parse(line).map(one)))))
  .on('close', () => process.exit(0));
`;

test('what explain predicts is what happens', { skip: withoutPlayground, timeout: 240_000 + ROUNDS * 60_000 }, async (t) => {
  const cluster = await startPlayground(t, { mesh: true });
  await cluster.apply(worldYaml(NAMESPACES, WITH_WAYPOINT));
  for (const namespace of ['plain', ...NAMESPACES]) await cluster.podsReady(namespace, 120_000);
  const api = KubeApi.load({ kubeconfig: cluster.kubeconfig, env: {} });
  const istiod = await Istiod.open(api, 'istio-system');
  t.after(() => {
    istiod.close();
    api.close();
  });
  const proxies = await proxiesOf(api, istiod, 'istio-system');
  const places = new Map<string, Awaited<ReturnType<typeof placeOf>>>();
  const predict = async ({ caller, target, method, path, headers }: RandomCall): Promise<Explanation> => {
    const [namespace = '', name = ''] = caller.split('/');
    const [host = '', port] = target.split(':');
    const place = places.get(caller) ?? (await placeOf(api, namespace, name));
    places.set(caller, place);
    const request = { method, path, headers: Object.entries(headers).map(([field, value]) => `${field}: ${value}`) };
    return explain({ namespace, pod: name, host, port: Number(port), request }, place, proxies);
  };
  /** One program for each caller, as long as the test takes. */
  const callers = new Map<string, Promise<Companion>>();
  t.after(() => {
    for (const caller of callers.values())
      void caller.then(
        ({ end }) => end(),
        () => undefined,
      );
  });
  const callerOf = (caller: string): Promise<Companion> => {
    const [namespace = '', name = ''] = caller.split('/');
    const found = callers.get(caller) ?? cluster.companion(namespace, name, nodeInPods, '-e', CALLS);
    callers.set(caller, found);
    return found;
  };
  const observe = async (calls: readonly RandomCall[]): Promise<Map<RandomCall, string>> => {
    const observed = new Map<RandomCall, string>();
    const byCaller = [...Map.groupBy(calls, ({ caller }) => caller)];
    const work = async (): Promise<void> => {
      for (let next = byCaller.shift(); next; next = byCaller.shift()) {
        const [caller, those] = next;
        const answers = JSON.parse(await (await callerOf(caller)).ask(JSON.stringify(those))) as string[];
        for (const [i, answer] of answers.entries()) observed.set(those[i] as RandomCall, answer);
      }
    };
    await Promise.all([work(), work(), work(), work()]);
    return observed;
  };

  /** Tries what disagrees again for a while: proxies learn of changes one after the other. @returns what goes on disagreeing */
  const disagreements = async (
    calls: readonly RandomCall[],
  ): Promise<{ wrong: Disagreement[]; explained: Map<RandomCall, Explanation> }> => {
    const explained = new Map<RandomCall, Explanation>();
    let left = calls;
    let wrong: Disagreement[] = [];
    for (let attempt = 0; attempt < 5 && left.length > 0; attempt++) {
      if (attempt > 0) await new Promise((resolve) => setTimeout(resolve, 250 * attempt));
      const predictions = await inParts(left, predict);
      const observed = await observe(left);
      wrong = left.flatMap((call, i) => {
        const explanation = predictions[i];
        assert.ok(explanation);
        explained.set(call, explanation);
        const happened = observed.get(call) ?? 'nothing';
        return leavesOf(explanation.ways).some((verdict) => agrees(verdict, happened)) ? [] : [{ call, explanation, happened }];
      });
      left = wrong.map(({ call }) => call);
    }
    return { wrong, explained };
  };

  const random = draws(SEED);
  let refusals = 0;
  let answers = 0;
  let flipped = 0;
  const marker = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: marker, namespace: istio-system }
spec: { action: DENY, rules: [{ from: [{ source: { principals: [cluster.local/ns/none/sa/ROUND] } }] }] }
`;
  let marks = 0;
  /** What was applied before the mark has reached both ztunnels: it is of the same kind, and comes in order. */
  const mark = async (yaml: string): Promise<void> => {
    const name = `mark-${++marks}`;
    await cluster.apply(`${yaml}\n---${marker.replace('ROUND', name)}`);
    const seen = async (target: string): Promise<boolean> => {
      const { ways } = await predict({ caller: 'plain/d', target, method: 'GET', path: '/', headers: {} });
      return ways.some(({ arrival }) => arrival?.policies.some(({ unmet }) => unmet.some((text) => text.includes(name))));
    };
    await cluster.eventually(`the ztunnels know ${name}`, async () => (await seen(`a.${LAST}:80`)) && (await seen(`b.${LAST}:80`)), 60_000);
  };

  for (let round = 0; round < ROUNDS; round++) {
    const made = NAMESPACES.map((namespace, i): Configuration => {
      const other = NAMESPACES[(i + 1) % NAMESPACES.length] ?? namespace;
      return randomConfiguration(random, namespace, other, i < WITH_WAYPOINT);
    });
    const startedMs = Date.now();
    await t.test(`configurations ${round * NAMESPACES.length + 1} to ${(round + 1) * NAMESPACES.length} of seed ${SEED}`, async () => {
      await cluster.kubectl('delete', ROUND_KINDS, '--all', '-A', '--wait=false');
      await mark(made.map(({ yaml }) => yaml).join(''));
      const { wrong, explained } = await disagreements(made.flatMap(({ calls }) => calls));
      assert.equal(wrong.length, 0, reportAll(wrong, made));

      // Of each namespace one call that policies refuse, and whatever else is refused by just these.
      const taken: { call: RandomCall; policies: readonly string[] }[] = [];
      for (const { namespace } of made) {
        const found = [...explained].find(([call, { ways }]) => call.target.includes(`.${namespace}:`) && refusersOf(ways).length > 0);
        if (found) taken.push({ call: found[0], policies: refusersOf(found[1].ways) });
      }
      for (const { ways } of explained.values()) {
        const outcomes = new Set(leavesOf(ways).map(({ outcome }) => outcome));
        if (outcomes.has('refused')) refusals++;
        if (outcomes.has('answered')) answers++;
      }
      const gone = [...new Set(taken.flatMap(({ policies }) => policies))];
      if (gone.length === 0) return;
      const remove = [
        ...gone.flatMap((key) => {
          const [namespace = '', name = ''] = key.split('/');
          return key.includes('converted') ? [] : [{ kind: 'AuthorizationPolicy', namespace, name }];
        }),
        ...taken.flatMap(({ call, policies }) =>
          policies.some((key) => key.includes('converted'))
            ? [{ kind: 'PeerAuthentication', namespace: namespaceOf(call), name: 'default' }]
            : [],
        ),
      ];
      const rehearsed = together(await istiod.postAll<Rehearsal>('/debug/rehearse', { apply: [], remove, sinceMs: startedMs }));
      for (const [namespace, those] of Map.groupBy(gone, (key) => key.split('/')[0] ?? ''))
        await cluster.kubectl('delete', 'authorizationpolicy', ...those.map(nameOf), '-n', namespace, '--ignore-not-found');
      // What a PeerAuthentication made stands for the one of the namespace that is called.
      for (const { call, policies } of taken)
        if (policies.some((key) => key.includes('converted')))
          await cluster.kubectl('delete', 'peerauthentication', 'default', '-n', namespaceOf(call), '--ignore-not-found');
      await mark('');
      const after = await disagreements(taken.map(({ call }) => call));
      assert.equal(after.wrong.length, 0, reportAll(after.wrong, made));
      for (const { call, policies } of taken) {
        const explanation = after.explained.get(call);
        assert.ok(explanation);
        const still = refusersOf(explanation.ways).filter((key) => policies.includes(key));
        assert.deepEqual(still, [], `${call.caller} to ${call.target}: still refused by what is gone`);
        const outcomes = leavesOf(explanation.ways).map(({ outcome, code }) => `${outcome} ${code ?? ''}`);
        const before = leavesOf(explained.get(call)?.ways ?? []).map(({ outcome, code }) => `${outcome} ${code ?? ''}`);
        // What refused at the waypoint may have stood before another refusal at the pod: then that one is what is named now.
        if (refusersOf(explanation.ways).length === 0) {
          assert.notDeepEqual(outcomes, before, `${call.caller} to ${call.target}: taking ${policies.join(', ')} away changed nothing`);
          flipped++;
          const { caller, target } = call;
          const told = rehearsed.changed.filter(
            ({ decision }) => isFrom(decision, caller) && isTo(decision, target, explained.get(call)?.ways ?? []),
          );
          assert.ok(
            told.some(({ after: { code } }) => code !== 'POLICY_DENIED' && code !== 'MTLS_REQUIRED'),
            `the rehearsal did not say that ${caller} to ${target} would change, but ${rehearsed.changed.map(({ decision }) => `${decision.source} to ${decision.service}`).join(', ')}`,
          );
        }
      }
    });
  }
  assert.ok(
    refusals > 0 && answers > 0 && flipped > 0,
    `${refusals} refused, ${answers} answered, ${flipped} turned: too few to show anything`,
  );
  t.diagnostic(
    `${ROUNDS * NAMESPACES.length} configurations of seed ${SEED}: ${refusals} calls refused, ${answers} answered, ${flipped} turned`,
  );
});

/** Whether a decision is about this pod as a caller, or about a waypoint that carried on what somebody asked of it: at a pod, that is who calls. */
function isFrom({ source, identity }: Decision, caller: string): boolean {
  const [namespace = '', name = ''] = caller.split('/');
  return source === caller || source.includes('/wp-') || (source === '' && identity.endsWith(`/ns/${namespace}/sa/${name}`));
}

/** Whether a decision is about this `service.namespace:port`: at a waypoint, or at a pod where one of the ways that were explained arrives. */
function isTo({ service, ip, port }: Decision, target: string, ways: readonly Way[]): boolean {
  const [host = '', asked] = target.split(':');
  const [name = '', namespace = ''] = host.split('.');
  const isService = service === `${namespace}/${name}.${namespace}.svc.cluster.local` && String(port) === asked;
  return isService || arrivalsOf(ways).includes(`${ip}:${port}`);
}

/** Addresses and ports of the pods that the ways arrive at. */
const arrivalsOf = (ways: readonly Way[]): string[] =>
  ways.flatMap(({ arrival, ways: further = [] }) => [...(arrival?.to === undefined ? [] : [arrival.to]), ...arrivalsOf(further)]);

interface Disagreement {
  readonly call: RandomCall;
  readonly explanation: Explanation;
  readonly happened: string;
}

/** How each of the ways may end. */
const leavesOf = (ways: readonly Way[]): Verdict[] => ways.flatMap((way) => (way.ways ? leavesOf(way.ways) : [way.verdict]));

/** Statuses that a waypoint refuses with. */
const REFUSALS = new Set(['error', '401', '403', '404', '500', '503']);

function agrees({ outcome, status }: Verdict, happened: string): boolean {
  if (outcome === 'delivered') return happened === 'delivered';
  if (outcome === 'answered') return happened === String(status);
  return outcome === 'refused' && REFUSALS.has(happened);
}

/** The policies that refuse on every way: each DENY that matches, and where no ALLOW does all of those. */
function refusersOf(ways: readonly Way[]): string[] {
  const sets = ways.map(({ arrival, request, ways: further }) => {
    if (arrival && !arrival.allowed) return refusing(arrival.policies);
    if (request && !request.allowed && request.code === 'POLICY_DENIED') return refusing(request.policies);
    return further ? refusersOf(further) : [];
  });
  return sets.every((set) => set.length > 0) ? [...new Set(sets.flat())] : [];
}

function refusing(policies: readonly PolicySeen[]): string[] {
  const enforced = policies.filter(({ dryRun }) => !dryRun);
  const denies = enforced.filter(({ action, matched }) => action === 'DENY' && matched);
  const allows = enforced.filter(({ action }) => action === 'ALLOW');
  return [...denies, ...(allows.some(({ matched }) => matched) ? [] : allows)].map(({ policy }) => policy);
}

const nameOf = (key: string): string => key.split('/')[1] ?? '';
const namespaceOf = ({ target }: RandomCall): string => /\.(r\d+):/.exec(target)?.[1] ?? '';

async function inParts<T, R>(items: readonly T[], run: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    for (let i = next++; i < items.length; i = next++) results[i] = await run(items[i] as T);
  };
  await Promise.all(Array.from({ length: 12 }, work));
  return results;
}

/** All in a line each, and some in full. */
function reportAll(wrong: readonly Disagreement[], made: readonly Configuration[]): string {
  const lines = wrong.map(({ call: { caller, target, method, path, headers }, explanation: { ways }, happened }) => {
    const said = leavesOf(ways).map(({ outcome, code, status, policy }) => [outcome, code, status, policy].filter(Boolean).join(' '));
    return `${caller} to ${target} ${method} ${path} ${JSON.stringify(headers)}: ${happened}, not ${[...new Set(said)].join(' or ')}`;
  });
  return [`${wrong.length} disagree`, ...lines, ...wrong.slice(0, 2).map((one) => report(one, made))].join('\n');
}

function report({ call, explanation, happened }: Disagreement, made: readonly Configuration[]): string {
  const namespace = namespaceOf(call);
  return [
    `${JSON.stringify(call)}: ${happened}, but explain says`,
    JSON.stringify({ steps: explanation.steps, ways: explanation.ways }),
    made.find((one) => one.namespace === namespace)?.yaml,
  ].join('\n');
}
