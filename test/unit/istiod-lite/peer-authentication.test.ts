import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  convertPorts,
  type MtlsMode,
  oldest,
  peerAuthenticationReference,
  readPeerAuthentication,
} from '../../../istiod-lite/model/peer-authentication.ts';
import { policyJson } from '../../support/config-dump.ts';
import * as make from '../../support/kube-objects.ts';

type Fields = Parameters<typeof make.peerAuthentication>[0];

function read(fields: Fields, problems: string[] = []) {
  const peer = readPeerAuthentication('istio-system', make.peerAuthentication(fields), (message) => problems.push(message));
  assert.ok(peer);
  return peer;
}

const selector = { app: 'a' };

function ports(mode: string | undefined, exceptions: Record<string, string>, inherited: MtlsMode): unknown {
  const policy = convertPorts(read({ name: 'p', selector, ports: exceptions, ...(mode === undefined ? {} : { mode }) }), inherited);
  return policy && policyJson(policy).rules;
}

const anonymous = { notPrincipals: [{ Presence: [] }] };

test('under STRICT the ports that are not STRICT are exceptions, PERMISSIVE and DISABLE alike', () => {
  assert.deepEqual(ports('STRICT', { 8080: 'PERMISSIVE', 9090: 'DISABLE', 7070: 'STRICT' }, 'PERMISSIVE'), [
    [[anonymous], [{ notDestinationPorts: [8080] }], [{ notDestinationPorts: [9090] }]],
  ]);
});

test('an exception that says DISABLE alone counts under an inherited STRICT', () => {
  assert.deepEqual(ports(undefined, { 8080: 'DISABLE' }, 'STRICT'), [[[anonymous], [{ notDestinationPorts: [8080] }]]]);
});

test('a STRICT port of a PERMISSIVE workload is enforced in a STRICT mesh', () => {
  const rules = [[[{ ...anonymous, destinationPorts: [8080] }]]];
  assert.deepEqual(ports('PERMISSIVE', { 8080: 'STRICT' }, 'STRICT'), rules);
  assert.deepEqual(ports('DISABLE', { 8080: 'STRICT' }, 'STRICT'), rules);
});

test('each STRICT port under PERMISSIVE is a rule of its own', () => {
  assert.deepEqual(ports(undefined, { 9090: 'STRICT', 8080: 'STRICT', 7070: 'UNSET' }, 'PERMISSIVE'), [
    [[{ ...anonymous, destinationPorts: [8080] }]],
    [[{ ...anonymous, destinationPorts: [9090] }]],
  ]);
});

test('ports that say what holds anyway need no policy', () => {
  assert.equal(ports('STRICT', { 8080: 'STRICT', 9090: 'UNSET' }, 'PERMISSIVE'), undefined);
  assert.equal(ports('PERMISSIVE', { 8080: 'DISABLE' }, 'STRICT'), undefined);
});

test('a workload refers to the converted policy, to the static one, or to none', () => {
  const reference = (inherited: MtlsMode, fields?: Partial<Fields>) =>
    peerAuthenticationReference('istio-system', inherited, fields && read({ name: 'p', selector, ...fields }));
  assert.equal(reference('STRICT'), 'istio-system/istio_converted_static_strict');
  assert.equal(reference('PERMISSIVE'), undefined);
  assert.equal(reference('STRICT', { mode: 'PERMISSIVE' }), undefined);
  assert.equal(reference('STRICT', { mode: 'DISABLE' }), undefined);
  assert.equal(reference('PERMISSIVE', { mode: 'STRICT' }), 'istio-system/istio_converted_static_strict');
  assert.equal(reference('STRICT', { ports: { 8080: 'PERMISSIVE' } }), 'shop/converted_peer_authentication_p');
});

test('the oldest counts, then the name', () => {
  const at = (name: string, createdAt: string) => read({ name, createdAt });
  assert.equal(oldest([at('b', '2026-01-02T00:00:00Z'), at('a', '2026-01-03T00:00:00Z')])?.name, 'b');
  assert.equal(oldest([at('b', '2026-01-02T00:00:00Z'), at('a', '2026-01-02T00:00:00Z')])?.name, 'a');
});

test('what has no effect, and what cannot be read, is a problem; an unknown mode is STRICT', () => {
  const problems: string[] = [];
  assert.equal(read({ name: 'p', mode: 'strict', ports: { http: 'STRICT' } }, problems).mode, 'STRICT');
  read({ name: 'p', namespace: 'istio-system', selector }, problems);
  read({ name: 'p', ports: { 80: 'STRICT' } }, problems);
  assert.equal(problems.length, 4);
});
