/** On-demand discovery: decisions that wait for what the control plane says about the names that they missed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seconds } from '../../../common/base/clock.ts';
import { ProxyError } from '../../../common/base/errors.ts';
import { routeOutbound } from '../../../common/decision/outbound.ts';
import { OnDemand } from '../../../ztunnel/worker/on-demand.ts';
import { service, waypointNamed, workload } from '../../support/builders.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';

function onDemand() {
  const mesh = new PlainMesh();
  const clock = new FakeClock();
  const wanted: string[] = [];
  const source = workload({ name: 'client', addresses: ['10.0.0.1'], protocol: 'HBONE' });
  mesh.put({ workload: source });
  const asks = new OnDemand({ view: mesh, clock, want: (name) => wanted.push(name) });
  const { signal } = new AbortController();
  const decide = (ip: string) =>
    asks.decided((view) => routeOutbound(view, { source, destination: { ip, port: 80 }, network: '', random: () => 0 }), signal);
  return { mesh, clock, wanted, asks, decide };
}

test('a destination that nobody knows yet is asked for once, and decided when the answer is there', async () => {
  const { mesh, wanted, asks, decide } = onDemand();
  const waiting = [decide('10.0.0.2'), decide('10.0.0.2')];
  assert.deepEqual(wanted, ['/10.0.0.2']);
  mesh.put({ workload: workload({ name: 'server', addresses: ['10.0.0.2'], protocol: 'HBONE' }) });
  asks.answered(['/10.0.0.2']);
  for (const route of await Promise.all(waiting)) assert.ok('via' in route && route.via === 'hbone');
  const again = await decide('10.0.0.2');
  assert.ok('via' in again && again.via === 'hbone');
  assert.deepEqual(wanted, ['/10.0.0.2']);
});

test('what the control plane does not know either passes as it is, and is not asked for again', async () => {
  const { wanted, asks, decide, clock } = onDemand();
  const waiting = decide('192.0.2.1');
  asks.answered(['/192.0.2.1']);
  const route = await waiting;
  assert.ok('via' in route && route.via === 'passthrough');
  await decide('192.0.2.1');
  assert.deepEqual(wanted, ['/192.0.2.1']);
  assert.equal(clock.pending, 0);
});

test('a service that has come leads to its waypoint, which is asked for next', async () => {
  const { mesh, wanted, asks, decide } = onDemand();
  const waiting = decide('10.96.0.1');
  mesh.put({ service: service({ name: 'shop', vips: ['10.96.0.1'], waypoint: waypointNamed('shop', 'waypoint.shop.svc.cluster.local') }) });
  asks.answered(['/10.96.0.1']);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(wanted, ['/10.96.0.1', 'shop/waypoint.shop.svc.cluster.local']);
  asks.answered(['shop/waypoint.shop.svc.cluster.local']);
  const route = await waiting;
  assert.ok('refuse' in route && route.refuse === 'WAYPOINT_ABSENT');
});

test('a control plane that does not answer lets nothing pass', async () => {
  const { clock, decide } = onDemand();
  const waiting = assert.rejects(
    decide('10.0.0.9'),
    (error: ProxyError) =>
      error instanceof ProxyError && error.code === 'WORKLOAD_UNKNOWN' && /within 5 s.*\/10\.0\.0\.9/.test(error.message),
  );
  await clock.advance(seconds(5));
  await waiting;
  assert.equal(clock.pending, 0);
});
