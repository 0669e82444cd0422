/** Another network: a tunnel through a gateway, and within it another one that ends at the remote pod's ztunnel. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { writeCertificate } from '../support/certificates.ts';
import { joinNetns, makeNetns, withoutNamespaces } from '../support/netns.ts';
import { dedicatedEnv, makePair, NAMESPACE, SERVICE_VIP } from '../support/pair.ts';
import { call, startEcho } from '../support/pair-programs.ts';
import { startProgram } from '../support/programs.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 120_000 };
const HOSTNAME = `server.${NAMESPACE}.svc.cluster.local`;

for (const { name, subjectAltNames, works } of [
  { name: 'a service in another network is reached through its gateway, by two tunnels', subjectAltNames: ['server'], works: true },
  {
    name: 'whoever answers behind the gateway must be one of the service’s own identities',
    subjectAltNames: ['somebody-else'],
    works: false,
  },
]) {
  test(name, options, async (t) => {
    const pair = await makePair(t);
    const gateway = makeNetns(t);
    const { a: gatewayEnd } = joinNetns(gateway, pair.client.netns, 170 + (process.pid % 40));
    const { b: serverEnd } = joinNetns(gateway, pair.server.netns, 211 + (process.pid % 40));
    const identity = `spiffe://cluster.local/ns/${NAMESPACE}/sa/gateway`;
    const certificate = join(pair.folder, 'gateway');
    writeCertificate(certificate, pair.authority.issue(identity));
    const remote = join(pair.folder, 'remote.yaml');
    writeFileSync(
      remote,
      `workloads:
- uid: cluster1//Pod/${NAMESPACE}/client
  name: client
  namespace: ${NAMESPACE}
  serviceAccount: client
  workloadIps: ["${pair.client.v4}"]
  protocol: HBONE
  services: {}
- uid: cluster1//Pod/${NAMESPACE}/gateway
  name: gateway
  namespace: ${NAMESPACE}
  serviceAccount: gateway
  workloadIps: ["${gatewayEnd.v4}"]
  services: {}
- uid: remote/SplitHorizonWorkload/gateway/${NAMESPACE}/server
  name: remote
  namespace: ${NAMESPACE}
  network: remote
  workloadIps: []
  networkGateway: {destination: "/${gatewayEnd.v4}", hboneMtlsPort: 15009}
  protocol: HBONE
  services: {"${NAMESPACE}/${HOSTNAME}": {80: 80}}
services:
- name: server
  namespace: ${NAMESPACE}
  hostname: ${HOSTNAME}
  vips: ["/${SERVICE_VIP}"]
  ports: {80: 80}
  subjectAltNames: ${JSON.stringify(subjectAltNames.map((account) => `spiffe://cluster.local/ns/${NAMESPACE}/sa/${account}`))}
`,
    );
    const relay = startProgram(t, gateway, 'test/support/gateway-program.ts', ['15009', serverEnd.v4, '15008', certificate]);
    const server = startProgram(t, pair.server.netns, 'ztunnel/main.ts', [], { ...dedicatedEnv(pair, pair.server), NETWORK: '' });
    const client = startProgram(t, pair.client.netns, 'ztunnel/main.ts', [], {
      ...dedicatedEnv(pair, pair.client),
      LOCAL_XDS_PATH: remote,
    });
    await Promise.all([relay.line(/^listening/), server.line(/ztunnel serves/), client.line(/ztunnel serves/)]);
    await startEcho(t, pair.server.netns);

    const { received } = await call(pair.client.netns, SERVICE_VIP, 80);
    const line = await client.line(/direction="outbound"/);
    assert.match(await relay.line(/^CONNECT/), new RegExp(`^CONNECT ${HOSTNAME}:80 `));
    assert.doesNotMatch(relay.output(), /x-forwarded-network/, 'only the inner tunnel names the network');
    if (!works) {
      assert.equal(received, '');
      assert.match(line, /identity verification error: .* presented spiffe:\/\/cluster.local\/ns\/shop\/sa\/server/);
      return;
    }
    assert.equal(received, 'hello worldhello world');
    assert.match(line, new RegExp(`dst.addr=${gatewayEnd.v4}:15009 dst.hbone_addr=${HOSTNAME}:80`));
    const inbound = await server.line(/direction="inbound"/);
    assert.match(inbound, new RegExp(`src.identity="${pair.client.identity}".*dst.hbone_addr=${HOSTNAME}:80 dst.service="${HOSTNAME}"`));
    assert.equal((await call(pair.client.netns, SERVICE_VIP, 80)).received, 'hello worldhello world', 'the outer connection is used again');
  });
}
