/** A node with the real node agent on it, between an API server of the test's and pods that are namespaces of the test's. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { NodeAgent } from '../../cni/agent.ts';
import { cniSettings } from '../../cni/settings.ts';
import { systemClock } from '../../common/base/clock.ts';
import { silentLog } from '../../common/base/log.ts';
import { readSettings } from '../../common/base/settings.ts';
import { FakeKubeApi } from './fake-kube-api.ts';
import { makeNetns, type TestNetns } from './netns.ts';
import { ZdsClient } from './zds-client.ts';

export const PODS = '/api/v1/pods';
export const NAMESPACES = '/api/v1/namespaces';
const REDIRECTION = 'ambient.istio.io/redirection';

export interface AgentPod {
  readonly uid: string;
  readonly ns: TestNetns;
  readonly name: string;
  readonly namespace: string;
}

interface PodOptions {
  readonly labels?: Record<string, string>;
  readonly phase?: string;
  /** Whether the status has its address already. */
  readonly ip?: boolean;
  /** Where the pod lives; a namespace of its own where it is not given. */
  readonly ns?: TestNetns;
  readonly address?: string;
}

interface Answer {
  readonly status: number;
  readonly body: string;
}

/** The agent starts when the test says so, and stops with the test. */
export async function startAgentWorld(t: TestContext, env: Record<string, string> = {}) {
  const kube = await FakeKubeApi.start(t);
  const folder = mkdtempSync(join(tmpdir(), 'warren-cni-'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const name of ['netns', 'net.d', 'bin', 'image']) mkdirSync(join(folder, name));
  writeFileSync(join(folder, 'image/istio-cni'), '#!/bin/true\n');
  writeFileSync(join(folder, 'net.d/10-test.conflist'), '{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"bridge"}]}');
  const node = makeNetns(t);
  const ports = { health: await freePort(), monitoring: await freePort() };
  const environment = {
    NODE_NAME: 'node-1',
    POD_NETNS_DIR: join(folder, 'netns'),
    ZTUNNEL_UDS_ADDRESS: join(folder, 'ztunnel.sock'),
    CNI_AGENT_RUN_DIR: join(folder, 'run'),
    MOUNTED_CNI_NET_DIR: join(folder, 'net.d'),
    MOUNTED_CNI_BIN_DIR: join(folder, 'bin'),
    WARREN_CNI_EXECUTABLE: join(folder, 'image/istio-cni'),
    HEALTH_PORT: String(ports.health),
    MONITORING_PORT: String(ports.monitoring),
    ...env,
  };
  const settings = readSettings(cniSettings, environment);
  for (const name of ['shop', 'legacy', 'kube-system']) kube.put(NAMESPACES, { metadata: { name } });
  let patches = 0;
  kube.intercept = ({ method, path, body }) => {
    const pod = /^\/api\/v1\/namespaces\/([^/]+)\/pods\/([^/]+)\/status$/.exec(path);
    if (method !== 'PATCH' || !pod) return undefined;
    const existing = kube.get(PODS, `${pod[1]}/${pod[2]}`);
    if (!existing) return { status: 404, reason: 'NotFound' };
    patches++;
    const changed = (body as { metadata: { annotations: Record<string, string | null> } }).metadata.annotations;
    const annotations = Object.fromEntries(
      Object.entries({ ...existing.metadata.annotations, ...changed }).filter(([, value]) => value !== null),
    );
    kube.put(PODS, { ...existing, metadata: { ...existing.metadata, annotations: annotations as Record<string, string> } });
    return { status: 200 };
  };

  let agent: NodeAgent | undefined;
  let addresses = 0;
  const stop = async (): Promise<void> => {
    const stopping = agent;
    agent = undefined;
    await stopping?.stop();
  };
  t.after(stop);
  const socketPath = join(folder, 'run/pluginevent.sock');
  return {
    kube,
    folder,
    node,
    /** The node's CNI configuration. */
    conflist: join(folder, 'net.d/10-test.conflist'),
    /** What lies beside the plugin on the node. */
    onNode: (name: string) => join(folder, 'bin', name),
    /** @param changed settings of this agent alone */
    async start(changed: Record<string, string> = {}): Promise<void> {
      const own = readSettings(cniSettings, { ...environment, ...changed });
      agent = new NodeAgent({
        settings: own,
        api: kube.client(),
        clock: systemClock,
        random: () => 0.5,
        log: silentLog,
        nodeNetns: node.netns,
      });
      await agent.start();
    },
    stop,
    /** Where ztunnels connect. */
    zdsPath: settings.ztunnelSocket,
    /** A scripted one that has said hello. */
    ztunnel: () => ZdsClient.connect(t, settings.ztunnelSocket).hello(),
    pod(
      namespace: string,
      name: string,
      { labels = {}, phase = 'Running', ip = true, ns = makeNetns(t), address }: PodOptions = {},
    ): AgentPod {
      const podIP = address ?? `10.0.0.${++addresses}`;
      const object = kube.put(PODS, {
        metadata: { namespace, name, labels },
        spec: { nodeName: 'node-1', serviceAccountName: name },
        status: { phase, ...(ip && { podIP, podIPs: [{ ip: podIP }] }) },
      });
      const uid = object.metadata.uid ?? '';
      symlinkSync(ns.path, join(folder, 'netns', uid));
      return { uid, ns, name, namespace };
    },
    finish(key: string): void {
      const pod = kube.get(PODS, key);
      assert.ok(pod);
      kube.put(PODS, { ...pod, status: { ...(pod.status as object), phase: 'Succeeded' } });
    },
    label(namespace: string, mode: string | undefined): void {
      kube.put(NAMESPACES, { metadata: { name: namespace, labels: mode === undefined ? {} : { 'istio.io/dataplane-mode': mode } } });
    },
    annotation: (key: string): string | undefined => kube.get(PODS, key)?.metadata.annotations?.[REDIRECTION],
    patches: () => patches,
    events: (): string[] => kube.keys('/api/v1/events').map((key) => String(kube.get('/api/v1/events', key)?.message)),
    nodeRules: () => node.exec('nft', 'list', 'ruleset'),
    post: (body: string, path = '/cmdadd') => call({ socketPath, path, method: 'POST' }, body),
    cmdAdd: ({ ns, name, namespace }: AgentPod) =>
      call(
        { socketPath, path: '/cmdadd', method: 'POST' },
        JSON.stringify({ Netns: ns.path, PodName: name, PodNamespace: namespace, IPs: [{ IP: '10.0.9.9', Mask: 'ffffffff' }] }),
      ),
    fetch: (which: keyof typeof ports, path: string) => call({ host: '127.0.0.1', port: ports[which], path }, ''),
  };
}

function call(options: http.RequestOptions, body: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.request(options, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }));
    });
    request.on('error', reject);
    request.end(body);
  });
}

/** Below those that the kernel gives to clients: what is free now is still free when the agent takes it. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    const server = http.createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, '::', () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}
