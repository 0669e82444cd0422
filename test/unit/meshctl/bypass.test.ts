import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../../common/client/kube-api.ts';
import { bypassOf, podsOf, targetOf, wayBack } from '../../../meshctl/bypass/scope.ts';
import { bypassProblems } from '../../../meshctl/status/bypass.ts';

const AMBIENT = { 'istio.io/dataplane-mode': 'ambient' };
const named = (name: string, more: KubeObject['metadata'] = {}): KubeObject => ({ metadata: { name, ...more } });
const pod = (namespace: string, name: string, nodeName: string, annotations: Record<string, string> = {}): KubeObject => ({
  metadata: { namespace, name, annotations },
  spec: { nodeName },
});
const namespaces = [named('shop', { labels: AMBIENT }), named('web'), named('kube-system', { labels: AMBIENT }), named('istio-system')];
const pods = [
  pod('shop', 'a', 'node1'),
  pod('shop', 'b', 'node2'),
  pod('web', 'c', 'node1'),
  pod('kube-system', 'dns', 'node1'),
  { metadata: { namespace: 'shop', name: 'agent' }, spec: { nodeName: 'node1', hostNetwork: true } },
  { metadata: { namespace: 'shop', name: 'unscheduled' }, spec: {} },
];

test('a bypass concerns the pods that the mesh would carry, of its node, namespace or everywhere', () => {
  const names = (scope: Parameters<typeof podsOf>[0]): string[] =>
    podsOf(scope, pods, namespaces).map(({ metadata }) => metadata.name ?? '');
  assert.deepEqual(names({ kind: 'node', name: 'node1' }), ['a']);
  assert.deepEqual(names({ kind: 'namespace', name: 'shop' }), ['a', 'b']);
  assert.deepEqual(names({ kind: 'namespace', name: 'web' }), []);
  assert.deepEqual(names({ kind: 'cluster', systemNamespace: 'istio-system' }), ['a', 'b']);
});

test("the cluster's bypass is said on the mesh's own namespace, and not in the words of a namespace's", () => {
  assert.deepEqual(targetOf({ kind: 'cluster', systemNamespace: 'mesh' }), {
    path: '/api/v1/namespaces/mesh',
    value: 'cluster',
    label: 'the cluster',
  });
  assert.equal(targetOf({ kind: 'namespace', name: 'mesh' }).value, 'true');
  assert.equal(targetOf({ kind: 'node', name: 'node1' }).path, '/api/v1/nodes/node1');
});

test('what still bypasses a pod is named with its own way back', () => {
  const annotated = (name: string, value: string): KubeObject => named(name, { annotations: { 'warren.dev/bypass': value } });
  const context = { namespaces: [annotated('shop', 'true')], nodes: [], systemNamespace: 'istio-system' };
  assert.equal(bypassOf(pod('shop', 'a', 'node1'), context), 'namespace');
  assert.equal(bypassOf(pod('shop', 'a', 'node1'), { ...context, nodes: [annotated('node1', 'true')] }), 'node');
  assert.equal(bypassOf(pod('web', 'c', 'node1', { 'warren.dev/bypassed': 'by hand' }), context), 'by hand');
  assert.equal(bypassOf(pod('web', 'c', 'node1'), { ...context, namespaces: [annotated('istio-system', 'cluster')] }), 'cluster');
  assert.equal(bypassOf(pod('web', 'c', 'node1'), { ...context, namespaces: [annotated('web', 'cluster')] }), undefined);
  assert.equal(wayBack('namespace', 'shop'), 'meshctl bypass namespace shop --undo');
  assert.equal(wayBack('cluster', ''), 'meshctl bypass cluster --undo');
  assert.equal(wayBack('by hand', 'node1'), 'on node node1: /opt/cni/bin/istio-cni bypass --undo');
});

test('status says what is bypassed once for each place, with the way back', () => {
  const problems = bypassProblems({
    systemNamespace: 'istio-system',
    namespaces: [named('shop', { annotations: { 'warren.dev/bypass': 'true' } })],
    nodes: [named('node2', { annotations: { 'warren.dev/bypass': 'true' } })],
    pods: [pod('web', 'c', 'node1', { 'warren.dev/bypassed': 'by hand' }), pod('web', 'd', 'node1', { 'warren.dev/bypassed': 'by hand' })],
  });
  assert.deepEqual(
    problems.map(({ object, severity }) => `${severity} ${object}`),
    ['error node node2', 'error node node1', 'error namespace shop'],
  );
  assert.match(problems[1]?.message ?? '', /istio-cni bypass --undo/);
});
