/** Connections from before a pod's enrolment: counted on the pod, and cut where a policy applies or its annotation says so. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OUTSIDE, PROBLEM, REDIRECTION } from '../../../cni/enrol/pod-voice.ts';
import { enrolled, setUp } from '../../support/enrolled-pod.ts';

test('connections that were open before are counted on the pod until they have ended, and nothing happens to them', async () => {
  const world = await enrolled({ outside: [1, 2, 3] });
  assert.equal(world.annotations.get(OUTSIDE), undefined, 'one look proves nothing');
  await world.clock.advance(1_000);
  assert.deepEqual([world.annotations.get(OUTSIDE), world.enrolment.outside], ['3', 3]);
  world.outside = [2, 99];
  await world.clock.advance(5_000);
  assert.equal(world.annotations.get(OUTSIDE), '1', 'a connection that is new is none of them');
  world.outside = [];
  await world.clock.advance(5_000);
  assert.deepEqual([world.annotations.has(OUTSIDE), world.enrolment.outside], [false, 0]);
  assert.deepEqual([world.notes.length, world.warnings, world.cut], [1, [], []]);
});

test('a connection that was only being made when the first look came is not counted', async () => {
  const world = await enrolled({ outside: [1] });
  world.outside = [];
  await world.clock.advance(60_000);
  assert.deepEqual([world.annotations.has(OUTSIDE), world.notes], [false, []]);
});

test('once STRICT applies they have a minute, and are cut', async () => {
  const world = await enrolled({ outside: [1, 2] });
  await world.clock.advance(100_000);
  world.policy = { kind: 'PeerAuthentication', policy: 'shop/default' };
  await world.clock.advance(60_000);
  assert.deepEqual(world.cut, [], 'the minute began when the agent saw it');
  await world.clock.advance(5_000);
  assert.deepEqual([world.cut, world.outside, world.annotations.has(OUTSIDE)], [['2 strict'], [], false]);
  const { level, fields } = world.log.at(-1) ?? assert.fail('nothing was logged');
  assert.equal(level, 'warn');
  assert.deepEqual(
    [fields.code, fields.policy, fields.pod, fields.count, fields.connections],
    ['PREDATES_MESH', 'shop/default', 'orders', 2, ['10.0.0.1:8080 - 10.9.9.9:1', '10.0.0.1:8080 - 10.9.9.9:2']],
  );
});

test('a policy that goes away again within the minute cuts nothing', async () => {
  const world = await enrolled({ outside: [1] });
  world.policy = { kind: 'AuthorizationPolicy', policy: 'shop/only-web' };
  await world.clock.advance(30_000);
  world.policy = undefined;
  await world.clock.advance(30_000);
  world.policy = { kind: 'AuthorizationPolicy', policy: 'shop/only-web' };
  await world.clock.advance(50_000);
  assert.deepEqual(world.cut, []);
  await world.clock.advance(20_000);
  assert.deepEqual(world.cut, ['1 policy']);
});

test('the annotation cuts them, drains them, or keeps them whatever applies, and then status says so', async () => {
  const start = async (wish: string) => {
    const world = setUp();
    world.outside = [1];
    world.policy = { kind: 'AuthorizationPolicy', policy: 'shop/only-web' };
    await world.upsert({ annotations: { 'warren.dev/open-connections': wish } });
    return world;
  };
  const cut = await start('cut');
  await cut.clock.advance(1_000);
  assert.deepEqual(cut.cut, ['1 annotation']);
  const drained = await start('drain=30s');
  await drained.clock.advance(29_000);
  assert.deepEqual(drained.cut, []);
  await drained.clock.advance(1_000);
  assert.deepEqual(drained.cut, ['1 annotation']);
  const kept = await start('keep');
  await kept.clock.advance(600_000);
  assert.deepEqual(kept.cut, []);
  assert.match(kept.annotations.get(PROBLEM) ?? '', /AuthorizationPolicy shop\/only-web does not reach connections that were open before/);
});

test('an annotation that means nothing is named, and is as if it were not there', async () => {
  const world = setUp();
  world.outside = [1];
  await world.upsert({ annotations: { 'warren.dev/open-connections': 'drain=soon' } });
  await world.clock.advance(100_000);
  assert.deepEqual(world.warnings, ['warren.dev/open-connections: "drain=soon" is none of keep, cut, drain=30s (at most 24h)']);
  assert.deepEqual(world.outside, [1]);
});

test('an agent that may not read policies says that it does not know, rather than that nothing applies', async () => {
  const world = await enrolled({ outside: [1], policiesKnown: false });
  await world.clock.advance(1_000);
  assert.match(world.annotations.get(PROBLEM) ?? '', /whether a policy applies to connections from before is not known/);
  world.policiesKnown = true;
  await world.clock.advance(5_000);
  assert.equal(world.annotations.has(PROBLEM), false);
});

test('a pod that leaves is no longer counted, and nothing of ours stays on it', async () => {
  const world = await enrolled({ outside: [1], findings: ['NetworkPolicy shop/web lets nobody in'] });
  await world.clock.advance(1_000);
  assert.deepEqual([...world.annotations.keys()].sort(), [REDIRECTION, OUTSIDE, PROBLEM].sort());
  world.decision = { enrol: false, selected: false, reason: '' };
  world.enrolment.pokeNamespace('shop');
  await world.clock.advance(0);
  assert.deepEqual([[...world.annotations.keys()], world.enrolment.outside], [[], 0]);
});
