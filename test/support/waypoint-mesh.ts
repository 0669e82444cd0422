/**
 * A client, a waypoint and a server, each in a network namespace of its own, with static configuration: what a mesh test of a waypoint needs
 * without a control plane. The client's and the server's traffic is captured by a ztunnel each; the waypoint's is not.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { DEFAULT_PROBE_SOURCE } from '../../cni/rules/constants.ts';
import { testAuthority, writeCertificate } from './certificates.ts';
import { joinNetns, makeNetns, type TestNetns } from './netns.ts';
import { applyPodRules } from './pod-rules.ts';
import { type Program, startProgram } from './programs.ts';

export const ORDERS = '10.96.0.10';
const HOST = 'orders.shop.svc.cluster.local';

export interface WaypointMesh {
  readonly client: TestNetns;
  readonly server: TestNetns;
  readonly waypointNetns: TestNetns;
  readonly waypointIp: string;
  readonly clientIp: string;
  readonly serverIp: string;
  readonly ztunnels: { readonly client: Program; readonly server: Program };
  readonly waypoint: Program;
  readonly app: Program;
  /** CERT_DIR of one of them. */
  certificate(name: 'client' | 'server' | 'waypoint'): string;
}

/** @param routes of LOCAL_ROUTES_PATH */
export async function startWaypointMesh(t: TestContext, routes: string): Promise<WaypointMesh> {
  const folder = await mkdtemp(join(tmpdir(), 'warren-waypoint-'));
  t.after(() => rm(folder, { recursive: true }));
  const [client, server, waypointNetns] = [makeNetns(t), makeNetns(t), makeNetns(t)];
  const subnet = 60 + (process.pid % 40);
  const left = joinNetns(client, waypointNetns, subnet);
  const right = joinNetns(waypointNetns, server, subnet + 100);
  client.exec('ip', 'route', 'add', 'default', 'via', left.b.v4);
  server.exec('ip', 'route', 'add', 'default', 'via', right.a.v4);
  const [clientIp, waypointIp, serverIp] = [left.a.v4, left.b.v4, right.b.v4];
  const authority = testAuthority();
  const certificate = (name: string): string => join(folder, name);
  for (const name of ['client', 'server', 'waypoint']) {
    writeCertificate(certificate(name), authority.issue(`spiffe://cluster.local/ns/shop/sa/${name}`));
  }
  const mesh = join(folder, 'mesh.yaml');
  await writeFile(mesh, meshYaml({ clientIp, waypointIp, waypointSecond: right.a.v4, serverIp }));
  const routesFile = join(folder, 'routes.yaml');
  await writeFile(routesFile, routes);
  for (const { netns, name } of [client, server]) {
    await applyPodRules(
      { netns, about: name },
      {
        redirectDns: false,
        ingressMode: false,
        virtualInterfaces: [],
        ipv6: true,
        probeSource: DEFAULT_PROBE_SOURCE,
        captureOpenConnections: false,
      },
    );
  }
  const ztunnel = (netns: TestNetns, name: 'client' | 'server'): Program =>
    startProgram(t, netns, 'ztunnel/main.ts', ['proxy', 'ztunnel'], {
      PROXY_MODE: 'dedicated',
      PROXY_WORKLOAD_INFO: `shop/${name}/${name}`,
      LOCAL_XDS_PATH: mesh,
      CERT_DIR: certificate(name),
      PACKET_MARK: '1337',
      ...COMPILED,
      XDS_ADDRESS: '',
      CA_ADDRESS: '',
    });
  const ztunnels = { client: ztunnel(client, 'client'), server: ztunnel(server, 'server') };
  const waypoint = startProgram(t, waypointNetns, 'waypoint/main.ts', ['proxy', 'waypoint'], {
    LOCAL_XDS_PATH: mesh,
    LOCAL_ROUTES_PATH: routesFile,
    CERT_DIR: certificate('waypoint'),
    GATEWAY_NAME: 'waypoint',
    POD_NAME: 'waypoint-1',
    POD_NAMESPACE: 'shop',
    SERVICE_ACCOUNT: 'waypoint',
    INSTANCE_IP: waypointIp,
    XDS_ADDRESS: '',
    CA_ADDRESS: '',
    LOG_FORMAT: 'json',
    ...COMPILED,
    MINIMUM_DRAIN_DURATION: '100ms',
  });
  const app = startProgram(t, server, '-e', [APP]);
  await Promise.all([
    ztunnels.client.line(/ztunnel serves/, 60_000),
    ztunnels.server.line(/ztunnel serves/, 60_000),
    waypoint.line(/waypoint serves/, 60_000),
    app.line(/^listening/),
  ]);
  return { client, server, waypointNetns, waypointIp, clientIp, serverIp, ztunnels, waypoint, app, certificate };
}

// Three programs that start at once are slow where they all have their types stripped.
const COMPILED = { NODE_COMPILE_CACHE: fileURLToPath(new URL('../../node_modules/.cache/compile-tests', import.meta.url)) };

/** HTTP that says what it sees, fails where it is asked to, and a protocol in which the server speaks first. */
const APP = `
let flaky = 0;
require('node:http').createServer((request, response) => {
  let body = 0;
  request.on('data', (chunk) => { body += chunk.length; });
  request.on('end', () => {
    if (request.url.startsWith('/flaky') && ++flaky <= 2) response.statusCode = 503;
    if (request.url.startsWith('/never')) return;
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ method: request.method, url: request.url, headers: request.headers, body, flaky }));
  });
}).listen(8080, '::', () => console.log('listening'));
require('node:net').createServer({ allowHalfOpen: true }, (socket) => {
  socket.write('220 ready\\n');
  socket.on('data', (data) => socket.end('you said ' + data));
  socket.on('error', () => undefined);
}).listen(9090, '::');
`;

const meshYaml = (ip: { clientIp: string; waypointIp: string; waypointSecond: string; serverIp: string }): string => `
workloads:
- {uid: c1//Pod/shop/client, name: client, namespace: shop, serviceAccount: client,
  workloadIps: ["${ip.clientIp}"], protocol: HBONE, workloadName: web,
  canonicalName: web, canonicalRevision: v1, services: {}}
- {uid: c1//Pod/shop/server, name: server, namespace: shop, serviceAccount: server, workloadIps: ["${ip.serverIp}"], protocol: HBONE,
  workloadName: orders-v1, canonicalName: orders, canonicalRevision: v1, requireWaypoint: {exceptPorts: [9090]}, services: {"shop/${HOST}": {80: 8080, 90: 9090, 91: 9090, 92: 10000}}}
- {uid: c1//Pod/shop/waypoint-1, name: waypoint-1, namespace: shop, serviceAccount: waypoint,
  workloadIps: ["${ip.waypointIp}", "${ip.waypointSecond}"], protocol: HBONE, workloadName: waypoint, canonicalName: waypoint,
  services: {"shop/waypoint.shop.svc.cluster.local": {15008: 15008}}}
services:
- {name: orders, namespace: shop, hostname: ${HOST}, vips: ["/${ORDERS}"], ports: {80: 8080, 90: 9090, 91: 9090, 92: 10000},
  appProtocols: {80: HTTP11, 90: TCP, 92: GRPC}, waypoint: {destination: shop/waypoint.shop.svc.cluster.local}}
- {name: waypoint, namespace: shop, hostname: waypoint.shop.svc.cluster.local, vips: ["/10.96.0.20"], ports: {15008: 15008}}
- {name: free, namespace: shop, hostname: free.shop.svc.cluster.local, vips: ["/10.96.0.30"], ports: {80: 8080}}
`;
