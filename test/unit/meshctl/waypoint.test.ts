import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gatewayOf } from '../../../meshctl/commands/waypoint.ts';

test('a waypoint is a Gateway with one HBONE listener; labels appear where their flag was given', () => {
  assert.deepEqual(gatewayOf({ namespace: 'shop', name: 'waypoint' }), {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'Gateway',
    metadata: { name: 'waypoint', namespace: 'shop' },
    spec: { gatewayClassName: 'istio-waypoint', listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }] },
  });
  const { metadata } = gatewayOf({ namespace: 'shop', name: 'w', for: 'all', revision: 'canary' });
  assert.deepEqual(metadata.labels, { 'istio.io/waypoint-for': 'all', 'istio.io/rev': 'canary' });
});

test('a name or a traffic type that cannot be is refused before anything is applied', () => {
  assert.throws(() => gatewayOf({ namespace: 'shop', name: 'none' }), /cannot be called none/);
  assert.throws(
    () => gatewayOf({ namespace: 'shop', name: 'w', for: 'everything' }),
    /--for everything: expected service, workload, all, none/,
  );
});
