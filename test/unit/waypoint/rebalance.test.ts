/** Who is asked to leave when replicas are added, and when nobody is. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Replicas, replicasOf, Shedder } from '../../../waypoint/inbound/rebalance.ts';
import { memberOf, service, workload } from '../../support/builders.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';

const pod = (name: string) => workload({ name, uid: `c//Pod/shop/${name}` });
const pods = (...names: string[]) => names.map(pod);
const always = () => true;

test('one replica of five keeps a fifth of its connections, and each other one the same part after each step on the way', () => {
  const replicas = new Replicas();
  assert.equal(replicas.update(pod('a'), pods('a'), always), 0, 'the first picture is how it is');
  assert.equal(replicas.update(pod('a'), pods('a', 'b', 'c', 'd', 'e'), always), 4 / 5);
  const stepwise = new Replicas();
  stepwise.update(pod('a'), pods('a'), always);
  const parts = [pods('a', 'b'), pods('a', 'b', 'c'), pods('a', 'b', 'c', 'd', 'e')].map((ready) =>
    stepwise.update(pod('a'), ready, always),
  );
  assert.deepEqual(parts, [1 / 2, 1 / 3, 2 / 5]);
  const kept = parts.reduce((left, part) => left * (1 - part), 1);
  assert.ok(Math.abs(kept - 1 / 5) < 1e-9);
});

test('the same picture, fewer replicas, and one that was not ready for a while move nobody', () => {
  const replicas = new Replicas();
  const update = (...names: string[]) => replicas.update(pod('a'), pods(...names), always);
  update('a', 'b', 'c');
  assert.deepEqual([update('a', 'b', 'c'), update('a', 'b'), update('a', 'b', 'c'), update('a')], [0, 0, 0, 0]);
});

test('a replica of the name of one that was deleted is new', () => {
  const replicas = new Replicas();
  const there = new Set(['a', 'b'].map((name) => pod(name).uid));
  const exists = (uid: string) => there.has(uid);
  replicas.update(pod('a'), pods('a', 'b'), exists);
  there.delete(pod('b').uid);
  replicas.update(pod('a'), pods('a'), exists);
  assert.equal(replicas.update(pod('a'), pods('a', 'b'), exists), 1 / 2);
});

test('a replica that hears of itself last has nothing to give away for that, and an unknown service says nothing', () => {
  const replicas = new Replicas();
  assert.equal(replicas.update(pod('new'), undefined, always), 0);
  assert.equal(replicas.update(pod('new'), [], always), 0);
  replicas.update(pod('new'), pods('old'), always);
  assert.equal(replicas.update(pod('new'), pods('old', 'new'), always), 0);
});

test('its replicas are the healthy endpoints of its own service, whatever the cluster domain is', () => {
  const own = service({ name: 'waypoint', namespace: 'shop', hostname: 'waypoint.shop.svc.example.org' });
  const other = service({ name: 'web', namespace: 'shop' });
  const member = memberOf(own, other);
  const mesh = new PlainMesh();
  for (const one of [own, other]) mesh.put({ service: one });
  const self = workload({ name: 'a', services: member });
  for (const one of [self, workload({ name: 'b', services: member }), workload({ name: 'sick', services: member, healthy: false })]) {
    mesh.put({ workload: one });
  }
  const name = { namespace: 'shop', host: 'waypoint.shop.svc' };
  assert.deepEqual(
    replicasOf(mesh, self, name)
      ?.map((one) => one.name)
      .sort(),
    ['a', 'b'],
  );
  assert.equal(replicasOf(mesh, workload({ name: 'stray' }), name), undefined);
});

/** Connections, and which of them were asked to go, in order. */
function shedder(count: number, random: () => number = Math.random) {
  const clock = new FakeClock();
  const asked: number[] = [];
  const open = Array.from({ length: count }, (_, i) => ({ drain: () => void asked.push(i) }));
  return { clock, asked, open, shedder: new Shedder(() => open, { clock, random }) };
}

test('a part of the connections is asked, each once, over a few seconds', async () => {
  const { clock, asked, shedder: one } = shedder(100);
  const count = one.shed(0.8);
  assert.ok(count === 80 || count === 81, String(count));
  assert.deepEqual(asked, [], 'not all at once');
  await clock.advance(1500);
  assert.ok(asked.length > 20 && asked.length < 60, `${asked.length} in half of the time`);
  await clock.advance(1500);
  assert.equal(asked.length, count);
  assert.equal(new Set(asked).size, count);
});

test('who was asked already does not count for the next part', async () => {
  const { clock, asked, shedder: one } = shedder(100, () => 0.5);
  assert.equal(one.shed(1 / 2), 50);
  assert.equal(one.shed(1 / 5), 10);
  await clock.advance(3000);
  assert.equal(new Set(asked).size, 60);
});

test('of one connection a half goes half of the time', () => {
  assert.equal(shedder(1, () => 0.4).shedder.shed(0.5), 0);
  assert.equal(shedder(1, () => 0.6).shedder.shed(0.5), 1);
  assert.equal(shedder(0, () => 0.99).shedder.shed(0.9), 0);
});
