import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod } from '../../../cni/enrol/decision.ts';
import { NamespaceLabels } from '../../../cni/kube/namespace-labels.ts';
import { annotatePod, writePodEvent } from '../../../cni/kube/pod-status.ts';
import { silentLog } from '../../../common/base/log.ts';
import { KubeApiError, type KubeObject } from '../../../common/client/kube-api.ts';

const pod: Pod = { metadata: { name: 'orders', namespace: 'shop', uid: 'uid-1', resourceVersion: '7' } };

test('the annotation is a merge patch of the status, for this very pod; taking it away is null', async () => {
  const calls: unknown[] = [];
  const api = { patch: async <T>(...args: unknown[]): Promise<T> => calls.push(args) as T };
  await annotatePod(api, pod, { 'ambient.istio.io/redirection': 'enabled' });
  await annotatePod(api, pod, { 'ambient.istio.io/redirection': null });
  const path = '/api/v1/namespaces/shop/pods/orders/status';
  const body = (value: unknown) => ({ metadata: { uid: 'uid-1', annotations: { 'ambient.istio.io/redirection': value } } });
  assert.deepEqual(calls, [
    [path, body('enabled'), { type: 'merge' }],
    [path, body(null), { type: 'merge' }],
  ]);
});

test('a pod that is gone, or has a successor of its name, needs no annotation; every other refusal is passed on', async () => {
  const failing = (status: number, message: string) => ({ patch: async () => Promise.reject(new KubeApiError(status, '', message)) });
  await annotatePod(failing(404, 'not found'), pod, {});
  await annotatePod(failing(409, 'Precondition failed: UID in precondition: uid-1'), pod, {});
  await assert.rejects(annotatePod(failing(409, 'the object has been modified'), pod, {}), KubeApiError);
  await assert.rejects(annotatePod(failing(403, 'forbidden'), pod, {}), /forbidden/);
});

test('a warning is an event on the pod, of bounded length, and nobody minds when it cannot be written', async () => {
  const events: { path: string; event: Record<string, unknown> }[] = [];
  const api = {
    create: async <T>(path: string, event: unknown): Promise<T> => {
      events.push({ path, event: event as Record<string, unknown> });
      throw new KubeApiError(403, 'Forbidden', 'no');
    },
  };
  const parts = { api, log: silentLog, nodeName: 'node-1', now: () => Date.UTC(2026, 0, 2, 3, 4, 5, 678) };
  writePodEvent(parts, pod, 'Warning', 'x'.repeat(5000));
  await new Promise((resolve) => setImmediate(resolve));
  const { path, event } = events[0] ?? assert.fail('no event');
  assert.equal(path, '/api/v1/namespaces/shop/events');
  assert.equal(String(event.message).length, 1024);
  assert.deepEqual([event.type, event.lastTimestamp], ['Warning', '2026-01-02T03:04:05Z']);
  assert.deepEqual(event.involvedObject, {
    apiVersion: 'v1',
    kind: 'Pod',
    name: 'orders',
    namespace: 'shop',
    uid: 'uid-1',
    resourceVersion: '7',
  });
});

test('labels that were asked for hold until the watch has come as far, whatever older states it still reports', () => {
  const state = (resourceVersion: string, mode: string): KubeObject => ({ metadata: { name: 'shop', resourceVersion, labels: { mode } } });
  const store = new Map([['shop', state('5', 'old')]]);
  const labels = new NamespaceLabels({ get: (key) => store.get(key), values: () => store.values(), synced: true });
  assert.deepEqual(labels.get('shop'), { mode: 'old' });
  assert.equal(labels.get('other'), undefined);
  labels.learn(state('5', 'old'));
  labels.learn(state('10', 'new'));
  assert.deepEqual(labels.get('shop'), { mode: 'new' });
  const report = (object: KubeObject): void => {
    store.set('shop', object);
    labels.watched(object);
  };
  report(state('9', 'older'));
  assert.deepEqual(labels.get('shop'), { mode: 'new' });
  report(state('11', 'newest'));
  assert.deepEqual(labels.get('shop'), { mode: 'newest' });
  labels.learn(state('10', 'new'));
  assert.deepEqual(labels.get('shop'), { mode: 'newest' }, 'an answer that the watch has overtaken');
});
