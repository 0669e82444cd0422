/** A waypoint as a plain reverse proxy in a namespace of a test: no tunnels, no certificates, a listener and a backend for each service. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { TestNetns } from './netns.ts';
import { type Program, startProgram } from './programs.ts';

export interface PlainService {
  readonly name: string;
  /** Where the waypoint listens for it. */
  readonly listen: number;
  /** Where its pod does, on the same address. */
  readonly port: number;
  readonly protocol: 'HTTP11' | 'HTTP2' | 'GRPC';
}

const COMPILED = fileURLToPath(new URL('../../node_modules/.cache/compile-tests', import.meta.url));

/** Resolves when it serves. */
export async function startPlainWaypoint(t: TestContext, netns: TestNetns, services: readonly PlainService[]): Promise<Program> {
  const folder = await mkdtemp(join(tmpdir(), 'warren-plain-'));
  t.after(() => rm(folder, { recursive: true }));
  const host = (name: string): string => `${name}.shop.svc.cluster.local`;
  const mesh = {
    workloads: services.map(({ name, port }) => ({
      name,
      namespace: 'shop',
      uid: `c1//Pod/shop/${name}`,
      workloadIps: ['127.0.0.1'],
      protocol: 'TCP',
      services: { [`shop/${host(name)}`]: { 80: port } },
    })),
    services: services.map(({ name, port, protocol }, i) => ({
      name,
      namespace: 'shop',
      hostname: host(name),
      vips: [`/10.96.0.${i + 1}`],
      ports: { 80: port },
      appProtocols: { 80: protocol },
    })),
  };
  const file = join(folder, 'mesh.yaml');
  await writeFile(file, JSON.stringify(mesh));
  const waypoint = startProgram(t, netns, 'waypoint/main.ts', ['proxy', 'waypoint'], {
    LOCAL_XDS_PATH: file,
    PLAINTEXT_LISTEN: services.map(({ name, listen }) => `${listen}=shop/${host(name)}:80`).join(','),
    GATEWAY_NAME: 'waypoint',
    POD_NAME: 'waypoint-1',
    POD_NAMESPACE: 'shop',
    SERVICE_ACCOUNT: 'waypoint',
    XDS_ADDRESS: '',
    CA_ADDRESS: '',
    WARREN_HBONE_PORT: '0',
    WARREN_WORKER_THREADS: '1',
    MINIMUM_DRAIN_DURATION: '0s',
    NODE_COMPILE_CACHE: COMPILED,
  });
  await waypoint.line(/waypoint serves/, 60_000);
  return waypoint;
}
