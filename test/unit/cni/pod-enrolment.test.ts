import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod } from '../../../cni/enrol/decision.ts';
import { PROBLEM } from '../../../cni/enrol/pod-voice.ts';
import { enrolled, setUp } from '../../support/enrolled-pod.ts';

test('a pod comes in without a gap: ztunnel listens, then the rules, then the probes, then everybody is told', async () => {
  const world = setUp();
  await world.upsert({});
  assert.deepEqual(world.done, ['add +10', 'apply', 'probe 10.0.0.1', 'annotate enabled']);
  assert.equal(world.enrolment.enrolled, 1);
});

test('what is so already is not done again', async () => {
  const world = setUp();
  await world.upsert({});
  await world.upsert({ annotation: 'enabled' });
  await world.upsert({ annotation: 'enabled' });
  assert.equal(world.done.length, 4);
});

test('an annotation that somebody changed is put right', async () => {
  const world = setUp();
  await world.upsert({});
  await world.upsert({ annotation: undefined });
  assert.deepEqual(world.done.slice(4), ['annotate enabled']);
});

test('without a ztunnel the pod is captured all the same, says pending, and goes on trying', async () => {
  const world = setUp();
  world.fail.set('add', 'no ztunnel is connected');
  await world.upsert({});
  assert.deepEqual(world.done, ['add +10', 'apply', 'probe 10.0.0.1', 'annotate pending']);
  await world.clock.advance(60_000);
  const tries = world.done.filter((step) => step === 'add +10').length;
  assert.ok(tries > 15 && tries < 40, `${tries} tries in a minute: each 5 s in the end`);
  world.fail.delete('add');
  await world.clock.advance(6_000);
  assert.equal(world.done.at(-1), 'annotate enabled');
  assert.deepEqual(world.warnings, ['no ztunnel is connected']);
});

test('rules that cannot be written are tried again, and the pod does not say that it is enabled', async () => {
  const world = setUp();
  world.fail.set('apply', 'pod shop/orders: nft -f -: exit status 1');
  await world.upsert({});
  await world.clock.advance(1_000);
  assert.equal(world.done.includes('annotate enabled'), false);
  assert.equal(world.enrolment.enrolled, 0);
  world.fail.delete('apply');
  await world.clock.advance(6_000);
  assert.equal(world.done.at(-1), 'annotate enabled');
});

test('an API server that is away does not stop the capture', async () => {
  const world = setUp();
  world.fail.set('annotate', 'connect ECONNREFUSED');
  await world.upsert({});
  assert.equal(world.enrolment.enrolled, 1);
  world.fail.delete('annotate');
  await world.clock.advance(6_000);
  assert.deepEqual(world.done.slice(-1), ['annotate enabled']);
});

test('a pod goes out gently: annotation, probes, neutral rules; two seconds later ztunnel lets go and the rules go', async () => {
  const world = await enrolled();
  world.decision = { enrol: false, selected: false, reason: '' };
  world.enrolment.pokeNamespace('shop');
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['annotate none', 'probe', 'drain']);
  await world.clock.advance(1_999);
  assert.deepEqual(world.take(), []);
  await world.clock.advance(1);
  assert.deepEqual(world.take(), ['del', 'remove', 'close 10']);
});

test('while ztunnel relays something for a pod that left, it keeps the pod, until the deadline', async () => {
  const world = await enrolled();
  world.relayed = 3;
  world.decision = { enrol: false, selected: false, reason: '' };
  world.enrolment.pokeNamespace('shop');
  await world.clock.advance(30_000);
  assert.deepEqual(world.take(), ['annotate none', 'probe', 'drain']);
  assert.equal(world.enrolment.snapshot().length, 1, 'a ztunnel that restarts now is told about it');
  await world.clock.advance(30_000);
  assert.deepEqual(world.take(), ['del', 'remove', 'close 10']);

  const other = await enrolled();
  other.relayed = 1;
  other.decision = { enrol: false, selected: false, reason: '' };
  other.enrolment.pokeNamespace('shop');
  await other.clock.advance(10_000);
  other.relayed = 0;
  await other.clock.advance(5_000);
  assert.deepEqual(other.take().slice(-3), ['del', 'remove', 'close 10']);
});

test('a pod that is labelled again while it leaves gets its rules back, and ztunnel has never lost it', async () => {
  const world = await enrolled();
  world.decision = { enrol: false, selected: false, reason: '' };
  world.enrolment.pokeNamespace('shop');
  await world.clock.advance(500);
  world.take();
  world.decision = { enrol: true };
  world.enrolment.pokeNamespace('shop');
  await world.clock.advance(10_000);
  assert.deepEqual(world.take(), ['apply', 'probe 10.0.0.1', 'annotate enabled']);
});

test('a pod that was deleted is only taken from ztunnel and the probes: its rules went with it', async () => {
  const world = await enrolled();
  world.enrolment.delete(world.pod({}));
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['probe', 'del', 'close 10']);
  assert.equal(world.enrolment.snapshot().length, 0);
});

test('a pod that has finished loses its annotation too, and does not come back', async () => {
  const world = await enrolled();
  await world.upsert({ phase: 'Succeeded', annotation: 'enabled' });
  assert.deepEqual(world.take(), ['probe', 'del', 'close 10', 'annotate none']);
  await world.clock.advance(60_000);
  assert.deepEqual(world.take(), []);
});

test('a pod that never was in the mesh is left alone', async () => {
  const world = setUp();
  world.decision = { enrol: false, selected: false, reason: '' };
  await world.upsert({});
  assert.deepEqual(world.done, []);
});

test('a pod that is selected and may not be enrolled says why, once', async () => {
  const world = setUp();
  world.decision = { enrol: false, selected: true, reason: 'it has a sidecar' };
  await world.upsert({});
  await world.upsert({});
  assert.deepEqual(world.warnings, ['not enrolled: it has a sidecar']);
  assert.deepEqual(world.done, []);
});

test('a pod without an address is waited for; one with an address and without a namespace is a problem', async () => {
  const world = setUp();
  world.namespaces.length = 0;
  await world.upsert({ ip: undefined });
  assert.deepEqual([world.done, world.warnings], [[], []]);
  await world.upsert({});
  assert.deepEqual(world.warnings, ['its network namespace was not found on this node']);
  world.namespaces.push(33);
  await world.clock.advance(6_000);
  assert.equal(world.done.at(-1), 'annotate enabled');
});

test('a CNI call is answered when ztunnel serves the pod, with the addresses of the call', async () => {
  const world = setUp();
  await world.enrolment.join(world.pod({ ip: undefined }), '/ns/20', ['10.0.0.9'], 25_000);
  await world.clock.advance(0);
  assert.deepEqual(world.done, ['add +20', 'apply', 'probe 10.0.0.9', 'annotate enabled']);
});

test('a CNI call that takes too long is answered with the last problem', async () => {
  const world = setUp();
  world.fail.set('add', 'ztunnel refused');
  const joining = world.enrolment.join(world.pod({ ip: undefined }), '/ns/20', [], 2_000);
  const answered = assert.rejects(joining, /ztunnel refused/);
  await world.clock.advance(2_000);
  await answered;
});

test('a CNI call for a pod that leaves the mesh meanwhile lets it start', async () => {
  const world = setUp();
  world.fail.set('add', 'ztunnel refused');
  const joining = world.enrolment.join(world.pod({ ip: undefined }), '/ns/20', [], 60_000);
  await world.clock.advance(100);
  world.decision = { enrol: false, selected: false, reason: '' };
  world.enrolment.pokeNamespace('shop');
  await joining;
});

test('a new sandbox of a pod replaces the old one', async () => {
  const world = await enrolled();
  await world.enrolment.join(world.pod({ annotation: 'enabled' }), '/ns/20', [], 25_000);
  assert.deepEqual(world.take(), ['close 10', 'add +20', 'apply']);
});

test('a CNI call that names the same namespace again changes nothing', async () => {
  const world = await enrolled();
  await world.enrolment.join(world.pod({ annotation: 'enabled' }), '/ns/10', [], 25_000);
  assert.deepEqual(world.take(), ['close 10']);
});

test('a ztunnel that connects later takes the pending pods with its snapshot', async () => {
  const world = setUp();
  world.fail.set('add', 'no ztunnel is connected');
  await world.upsert({});
  world.take();
  const [entry] = world.enrolment.snapshot();
  assert.equal(entry?.netnsFd(), 10);
  entry?.settle(undefined);
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['annotate enabled']);
});

test('a pod that the snapshot could not hand over is pending until it can', async () => {
  const world = await enrolled();
  world.fail.set('add', 'port taken');
  world.enrolment.snapshot()[0]?.settle(new Error('port taken'));
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['add +10', 'annotate pending']);
});

test('after a failover every pod is given to the ztunnel that is left, and nothing else happens', async () => {
  const world = await enrolled();
  world.enrolment.serveAgain();
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['add +10']);
  assert.equal(world.enrolment.enrolled, 1);
});

test('a pod that an earlier agent enrolled is written again without being taken away from anybody', async () => {
  const world = setUp();
  const pod = world.pod({ annotation: 'enabled' });
  world.enrolment.restore(pod, world.netns(10), false);
  assert.equal(world.enrolment.snapshot()[0]?.netnsFd(), 10);
  world.enrolment.upsert(pod);
  await world.clock.advance(0);
  assert.deepEqual(world.done, ['mend', 'probe 10.0.0.1']);
});

test('one whose namespace cannot be found is kept by ztunnel, and added when it is found', async () => {
  const world = setUp();
  const pod = world.pod({ annotation: 'enabled' });
  world.namespaces.length = 0;
  world.enrolment.restore(pod, undefined, false);
  assert.equal(world.enrolment.snapshot()[0]?.netnsFd(), undefined);
  world.namespaces.push(33);
  world.enrolment.upsert(pod);
  await world.clock.advance(0);
  assert.equal(world.done[0], 'add +33');
});

test('a pod that lost its label while no agent ran goes out', async () => {
  const world = setUp();
  world.decision = { enrol: false, selected: false, reason: '' };
  await world.upsert({ annotation: 'enabled' });
  await world.clock.advance(2_000);
  assert.deepEqual(world.done, ['annotate none', 'drain', 'del', 'remove', 'close 10']);
});

test('stopping leaves everything in place', async () => {
  const kept = await enrolled();
  await kept.enrolment.stop(false);
  assert.deepEqual(kept.take(), ['close 10']);
});

test('an agent that is uninstalled lets plaintext in, captures nothing more, and takes its rules out when the last request has its answer', async () => {
  const removed = await enrolled();
  removed.relayed = 1;
  const stopped = removed.enrolment.stop(true);
  await removed.clock.advance(1_999);
  assert.deepEqual(removed.take(), ['apply'], 'pods of other nodes may call in plaintext before it calls them so');
  await removed.clock.advance(4_001);
  assert.deepEqual(removed.take(), ['drain', 'annotate none']);
  removed.relayed = 0;
  await removed.clock.advance(500);
  assert.deepEqual(await stopped, []);
  assert.deepEqual(removed.take(), ['remove', 'del', 'close 10']);
});

test('an agent that is uninstalled does not wait for connections that go on and on', async () => {
  const removed = await enrolled();
  removed.relayed = 1;
  const stopped = removed.enrolment.stop(true);
  await removed.clock.advance(12_000);
  assert.deepEqual(await stopped, []);
  assert.deepEqual(removed.take(), ['apply', 'drain', 'annotate none', 'remove', 'del', 'close 10']);
});

test('a pod that a CNI call brought and that the API never shows is forgotten at the second sweep', async () => {
  const world = await enrolled();
  world.enrolment.sweep(() => false);
  await world.clock.advance(0);
  assert.deepEqual(world.take(), []);
  world.enrolment.sweep(() => false);
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['probe', 'del', 'close 10']);
});

test('annotations that cannot be read are ignored and reported once', async () => {
  const world = setUp();
  const pod = world.pod({});
  const annotated: Pod = {
    ...pod,
    metadata: {
      ...pod.metadata,
      annotations: { 'ambient.istio.io/dns-capture': 'yes', 'istio.io/reroute-virtual-interfaces': 'eth1; drop' },
    },
  };
  world.enrolment.upsert(annotated);
  world.enrolment.upsert(annotated);
  await world.clock.advance(0);
  assert.deepEqual(world.warnings, [
    'istio.io/reroute-virtual-interfaces: "eth1; drop" is no interface name',
    'ambient.istio.io/dns-capture: "yes" is neither true nor false',
  ]);
  assert.equal(world.enrolment.enrolled, 1);
});

test('rules that somebody removed or changed are found at the next look, put right, and told', async () => {
  const world = await enrolled();
  world.enrolment.verify();
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['mend']);
  assert.equal(world.mended, 0, 'they were as they should be');
  world.found = 'absent';
  world.enrolment.verify();
  await world.clock.advance(0);
  assert.deepEqual([world.take(), world.mended], [['mend'], 1]);
  assert.match(world.warnings.at(-1) ?? '', /its redirection rules had been removed by somebody else, and were written again/);
});

test('a pod that is not in the mesh has no rules to look at', async () => {
  const world = setUp();
  world.decision = { enrol: false, selected: false, reason: '' };
  await world.upsert({});
  world.enrolment.verify();
  await world.clock.advance(0);
  assert.deepEqual(world.done, []);
});

test('what a NetworkPolicy does to the pod is said in an event and on the pod, until it is mended', async () => {
  const world = await enrolled({ findings: ['NetworkPolicy shop/web shuts the mesh out; open 15008'] });
  assert.equal(world.annotations.get(PROBLEM), 'NetworkPolicy shop/web shuts the mesh out; open 15008');
  assert.deepEqual(world.warnings, ['NetworkPolicy shop/web shuts the mesh out; open 15008']);
  world.findings = [];
  world.enrolment.pokeNamespace('shop');
  await world.clock.advance(0);
  assert.equal(world.annotations.has(PROBLEM), false);
});

test('a problem stands on the pod as long as it lasts', async () => {
  const world = setUp();
  world.fail.set('add', 'no ztunnel is connected');
  await world.upsert({});
  assert.equal(world.annotations.get(PROBLEM), 'no ztunnel is connected');
  world.fail.delete('add');
  await world.clock.advance(6_000);
  assert.equal(world.annotations.has(PROBLEM), false);
});
