import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CapturedTraffic, outsideMesh } from '../../../cni/namespace/open-connections.ts';
import { DEFAULT_PROBE_SOURCE } from '../../../cni/rules/constants.ts';
import { tcpSocket } from '../../support/tcp-sockets.ts';

const captured: CapturedTraffic = { ingressMode: false, ipv6: true, probeSource: DEFAULT_PROBE_SOURCE };
const MARKED = 0xabc539;
const LISTEN = 10;

const outside = (sockets: Parameters<typeof tcpSocket>[0][], traffic: Partial<CapturedTraffic> = {}): string[] =>
  outsideMesh(
    sockets.map((fields) => tcpSocket(fields)),
    { ...captured, ...traffic },
  ).map(({ remote }) => `${remote.ip}:${remote.port}`);

test('a connection with no end of ztunnel beside it is outside, whichever side began it, on both families', () => {
  const sockets = [
    { local: 8080, state: LISTEN, remote: '0.0.0.0:0' },
    { local: 8080, remote: '10.9.9.9:40000' },
    { local: 40_001, remote: '10.9.9.9:5432' },
    { local: 'fd00::1:40002', remote: 'fd00::9:5432' },
  ];
  assert.deepEqual(outside(sockets), ['10.9.9.9:40000', '10.9.9.9:5432', 'fd00::9:5432']);
});

test('what ztunnel took on its way out is inside: its own end has the same client', () => {
  const sockets = [
    { local: 40_001, remote: '10.9.9.9:5432' },
    { local: '127.0.0.1:15001', remote: '10.0.0.1:40001', mark: MARKED },
    { local: 50_001, remote: '10.9.9.9:15008', mark: MARKED },
  ];
  assert.deepEqual(outside(sockets), []);
});

test('what ztunnel delivers is inside: the other end, with the address of the caller, is in the pod too', () => {
  const sockets = [
    { local: 8080, remote: '10.9.9.9:40000' },
    { local: '10.9.9.9:40000', remote: '10.0.0.1:8080', mark: MARKED },
    { local: 15_008, remote: '10.9.9.9:33000' },
    { local: 15_006, remote: '10.9.9.9:33001' },
  ];
  assert.deepEqual(outside(sockets), []);
});

test('the pod talking to itself and probes of the node are no business of the mesh', () => {
  const sockets = [
    { local: '127.0.0.1:8080', remote: '127.0.0.1:40000' },
    { local: '127.0.0.1:40000', remote: '127.0.0.1:8080' },
    { local: '10.0.0.1:8080', remote: '10.0.0.1:40001' },
    { local: '10.0.0.1:40001', remote: '10.0.0.1:8080' },
    { local: 8080, remote: `${DEFAULT_PROBE_SOURCE.v4}:40002` },
    { local: 'fd00::1:8080', remote: `${DEFAULT_PROBE_SOURCE.v6}:40003` },
  ];
  assert.deepEqual(outside(sockets), []);
});

test('traffic that the rules would not take either is not counted: inbound in ingress mode, IPv6 where it is off', () => {
  const sockets = [
    { local: 8080, state: LISTEN, remote: '0.0.0.0:0' },
    { local: 8080, remote: '10.9.9.9:40000' },
    { local: 40_001, remote: '10.9.9.9:5432' },
    { local: 'fd00::1:40002', remote: 'fd00::9:5432' },
  ];
  assert.deepEqual(outside(sockets, { ingressMode: true, ipv6: false }), ['10.9.9.9:5432']);
});

test('a connection that its program has closed is over', () => {
  assert.deepEqual(outside([{ local: 40_001, remote: '10.9.9.9:5432', state: 5, inode: 0 }]), []);
  assert.deepEqual(outside([{ local: 40_001, remote: '10.9.9.9:5432', state: 8 }]), ['10.9.9.9:5432']);
});

test("marks of other programs do not make a connection ztunnel's", () => {
  assert.deepEqual(outside([{ local: 40_001, remote: '10.9.9.9:5432', mark: 0x1000 }]), ['10.9.9.9:5432']);
});
