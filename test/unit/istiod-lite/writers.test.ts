import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seconds } from '../../../common/base/clock.ts';
import { KubeApiError, type PatchOptions } from '../../../common/client/kube-api.ts';
import { ROOT_FILE, TrustDistribution } from '../../../istiod-lite/ca/trust-distribution.ts';
import { StatusWriter } from '../../../istiod-lite/kube/status-writer.ts';
import type { StatusWrite } from '../../../istiod-lite/model/conditions.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { recordingLog } from '../../support/recording-log.ts';

const write = (name: string, status: 'True' | 'False' = 'True'): StatusWrite => ({
  kind: 'Service',
  apiVersion: 'v1',
  path: `/api/v1/namespaces/shop/services/${name}/status`,
  namespace: 'shop',
  name,
  fieldManager: 'istio-ambient-service',
  conditions: [{ type: 'istio.io/WaypointBound', status, reason: 'r', message: 'm' }],
});

function statusWriter(answer: (path: string) => Promise<void> | void) {
  const clock = new FakeClock();
  const log = recordingLog();
  const patches: { path: string; body: unknown; options: PatchOptions }[] = [];
  const outcomes: string[] = [];
  let holds = true;
  const writer = new StatusWriter({
    api: {
      async patch<T>(path: string, body: unknown, options: PatchOptions): Promise<T> {
        patches.push({ path, body, options });
        await answer(path);
        return {} as T;
      },
    },
    clock,
    random: () => 0.5,
    log,
    signal: new AbortController().signal,
    writes: () => holds,
    wrote: (outcome) => void outcomes.push(outcome),
  });
  const hold = (value: boolean): void => {
    holds = value;
  };
  return { clock, log, patches, outcomes, writer, hold };
}

test('a whole status is applied as it is, with times for what has just flipped, and for the object that it was made from', async () => {
  const { clock, patches, writer } = statusWriter(() => undefined);
  const since = '2025-01-01T00:00:00Z';
  const accepted = { type: 'Accepted', status: 'True' as const, reason: 'r', message: 'm' };
  const parents = [
    { parentRef: { name: 'a' }, controllerName: 'c', conditions: [accepted, { ...accepted, type: 'Other', lastTransitionTime: since }] },
  ];
  writer.write([{ ...write('web'), status: { parents }, resourceVersion: '7' }]);
  await clock.advance(0);
  const body = patches[0]?.body as { metadata: unknown; status: { parents: { conditions: unknown[] }[] } };
  assert.deepEqual(body.metadata, { name: 'web', namespace: 'shop', resourceVersion: '7' });
  assert.deepEqual(Object.keys(body.status), ['parents']);
  assert.deepEqual(body.status.parents[0]?.conditions, [
    { lastTransitionTime: '2026-01-01T00:00:00Z', ...accepted },
    { ...accepted, type: 'Other', lastTransitionTime: since },
  ]);
});

test('a status made from an object that has changed since is let go: the watch brings the next one', async () => {
  const { clock, patches, writer, outcomes } = statusWriter(() => {
    throw new KubeApiError(409, 'Conflict', 'the object has been modified');
  });
  writer.write([{ ...write('web'), resourceVersion: '7' }]);
  await clock.advance(seconds(60));
  assert.equal(patches.length, 1);
  assert.deepEqual(outcomes, ['gone']);
});

test('a condition is applied under its manager, with the time of its change', async () => {
  const { clock, patches, writer, outcomes } = statusWriter(() => undefined);
  writer.write([write('web')]);
  await clock.advance(0);
  assert.deepEqual(patches[0]?.options, { type: 'apply', fieldManager: 'istio-ambient-service', force: true });
  assert.deepEqual(patches[0]?.body, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'shop' },
    status: { conditions: [{ lastTransitionTime: '2026-01-01T00:00:00Z', ...write('web').conditions[0] }] },
  });
  assert.deepEqual(outcomes, ['written']);
});

test('who does not hold the lease keeps the newest state, and writes it when it does', async () => {
  const { clock, patches, writer, hold } = statusWriter(() => undefined);
  hold(false);
  writer.write([write('web', 'False')]);
  writer.write([write('web', 'True'), write('other')]);
  await clock.advance(seconds(60));
  assert.equal(patches.length, 0);
  hold(true);
  writer.resume();
  await clock.advance(0);
  assert.equal(patches.length, 2);
  assert.match(JSON.stringify(patches[0]?.body), /"status":"True"/);
});

test('what another replica wrote, or what is gone, is not written by the one that takes over', async () => {
  const { clock, patches, writer, hold } = statusWriter(() => undefined);
  hold(false);
  writer.write([write('web'), write('other')]);
  const [web, other] = [write('web'), write('other')];
  writer.write([write('other', 'False')], [web, other, { ...other, fieldManager: 'somebody else' }]);
  hold(true);
  writer.resume();
  await clock.advance(0);
  assert.deepEqual(
    patches.map(({ path }) => path),
    [other.path],
  );
  assert.match(JSON.stringify(patches[0]?.body), /"status":"False"/);
});

test('a failure is tried again; an object that is gone, or a refusal, is not', async () => {
  let failures = 2;
  const { clock, patches, writer, outcomes, log } = statusWriter((path) => {
    if (path.includes('gone')) throw new KubeApiError(404, 'NotFound', 'gone');
    if (path.includes('forbidden')) throw new KubeApiError(403, 'Forbidden', 'no');
    if (failures-- > 0) throw new Error('connection refused');
  });
  writer.write([write('web')]);
  await clock.advance(seconds(10));
  assert.equal(patches.length, 3);
  writer.write([write('gone'), write('forbidden')]);
  await clock.advance(seconds(60));
  assert.equal(patches.length, 5);
  assert.deepEqual(outcomes, ['written', 'gone', 'failed']);
  assert.equal(log.entries.filter(({ message }) => message === 'status could not be written').length, 1);
});

test('a slow API server gets four writes at a time, and each object once', async () => {
  const { clock, patches, writer } = statusWriter(() => new Promise(() => undefined));
  for (let round = 0; round < 3; round++) writer.write(Array.from({ length: 20 }, (_, i) => write(`s${i}`)));
  await clock.advance(0);
  assert.equal(patches.length, 4);
});

function distribution() {
  const clock = new FakeClock();
  const configMaps = new Map<string, { metadata: { labels?: Record<string, string> }; data?: Record<string, string> }>();
  const abort = new AbortController();
  let failing: Error | undefined;
  const state = { roots: 'ROOT', holds: true };
  const namespaceOf = (path: string): string => path.split('/')[4] ?? '';
  const store = (path: string, body: unknown): void => {
    if (failing) throw failing;
    configMaps.set(namespaceOf(path), body as never);
  };
  const roots = new TrustDistribution({
    file: ROOT_FILE,
    api: {
      async get<T>(path: string): Promise<T> {
        return structuredClone(configMaps.get(namespaceOf(path))) as T;
      },
      async create<T>(path: string, body: unknown): Promise<T> {
        if (!failing && configMaps.has(namespaceOf(path))) throw new KubeApiError(409, 'AlreadyExists', 'exists');
        store(path, body);
        return body as T;
      },
      async replace<T>(path: string, body: unknown): Promise<T> {
        store(path, body);
        return body as T;
      },
    },
    clock,
    random: () => 0.5,
    log: recordingLog(),
    signal: abort.signal,
    content: () => state.roots,
    writes: () => state.holds,
  });
  const fail = (error: Error | undefined): void => {
    failing = error;
  };
  return { clock, configMaps, roots, state, fail, abort };
}

test('roots are written where they are missing or different, and nowhere else', async () => {
  const { clock, configMaps, roots, state } = distribution();
  roots.configMapChanged('has', { metadata: {}, data: { 'root-cert.pem': 'ROOT' } });
  roots.configMapChanged('old', { metadata: {}, data: { 'root-cert.pem': 'OLD' } });
  configMaps.set('old', { metadata: { labels: { mine: 'yes' } }, data: { 'root-cert.pem': 'OLD', other: 'x' } });
  for (const namespace of ['has', 'old', 'new', 'kube-node-lease']) roots.namespaceChanged(namespace, true);
  await clock.advance(0);
  assert.deepEqual([...configMaps.keys()].sort(), ['new', 'old']);
  assert.deepEqual(configMaps.get('old')?.data, { 'root-cert.pem': 'ROOT' });
  assert.deepEqual(configMaps.get('old')?.metadata.labels, { mine: 'yes', 'istio.io/config': 'true' });
  state.roots = 'ROOT2';
  roots.everything();
  await clock.advance(0);
  assert.deepEqual([...configMaps.keys()].sort(), ['has', 'new', 'old']);
});

test('a write that fails is tried until it works or the namespace goes', async () => {
  const { clock, configMaps, roots, fail, abort } = distribution();
  fail(new Error('connection refused'));
  roots.namespaceChanged('a', true);
  await clock.advance(seconds(30));
  fail(undefined);
  await clock.advance(seconds(60));
  assert.equal(configMaps.get('a')?.data?.['root-cert.pem'], 'ROOT');
  fail(new KubeApiError(403, 'Forbidden', 'namespace b is being terminated'));
  roots.namespaceChanged('b', true);
  await clock.advance(seconds(60));
  assert.equal(clock.pending, 0);
  abort.abort();
});
