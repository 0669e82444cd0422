/** What runs in a pair's pods: an echo server, clients, captures, and a ztunnel in dedicated mode in each pod or one for both. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type AgentConnection, type FakeNodeAgent, startNodeAgent } from './fake-node-agent.ts';
import { makeNetns, type TestNetns } from './netns.ts';
import { dedicatedEnv, meshYaml, NAMESPACE, type Pair, type PairOptions, type TestPod } from './pair.ts';
import { type Program, runScript, startProgram } from './programs.ts';

/** Answers each connection's bytes with themselves twice over, and says whom it sees. */
export async function startEcho(t: TestContext, netns: TestNetns, port = 8080): Promise<Program> {
  // Without noDelay the second write waits for the acknowledgement of the first one, 40 ms at times.
  const script = `require('node:net').createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    console.log('connection from', socket.remoteAddress.replace('::ffff:', ''));
    socket.on('data', (data) => { socket.write(data); socket.write(data); });
    socket.on('end', () => socket.end());
    socket.on('error', () => console.log('reset'));
    socket.on('close', () => console.log('closed'));
  }).listen(${port}, '::', () => console.log('listening'));`;
  const echo = startProgram(t, netns, '-e', [script]);
  await echo.line(/^listening/);
  return echo;
}

/** Sends a text and returns everything that came back until the end; `error` where the connection failed. */
export async function call(
  netns: TestNetns,
  ip: string,
  port: number,
  text = 'hello world',
): Promise<{ received: string; error?: string }> {
  const output = await runScript(
    netns,
    `import net from 'node:net';
    let received = ''; let error;
    const socket = net.connect(${port}, ${JSON.stringify(ip)});
    socket.setTimeout(8000, () => { error = 'timeout'; socket.destroy(); });
    socket.on('data', (data) => { received += data; });
    socket.on('error', (e) => { error = e.code ?? e.message; });
    socket.on('close', () => console.log(JSON.stringify({ received, error })));
    socket.end(${JSON.stringify(text)});`,
  );
  return JSON.parse(output);
}

/** A connection that stays open: says \`open\` when the first echo is back, \`over CODE\` when it ends. */
export async function holdOpen(t: TestContext, netns: TestNetns, ip: string, port: number): Promise<Program> {
  const script = `const socket = require('node:net').connect(${port}, ${JSON.stringify(ip)});
    let error = 'end';
    socket.once('data', () => console.log('open'));
    socket.on('data', () => undefined);
    socket.on('error', (e) => { error = e.code; });
    socket.on('close', () => { console.log('over', error); });
    socket.write('x');`;
  const program = startProgram(t, netns, '-e', [script]);
  await program.line(/^open/);
  return program;
}

export async function get(netns: TestNetns, url: string): Promise<{ status: number; type: string; body: string }> {
  const output = await runScript(
    netns,
    `const answer = await fetch(${JSON.stringify(url)});
    console.log(JSON.stringify({ status: answer.status, type: answer.headers.get('content-type'), body: await answer.text() }));`,
  );
  return JSON.parse(output);
}

/** Records what passes on the wire; \`bytes\` stops it and returns everything. */
export async function capture(t: TestContext, netns: TestNetns, device: string): Promise<{ bytes(): Promise<Buffer> }> {
  const { spawn } = await import('node:child_process');
  const child = spawn('nsenter', [`--net=${netns.path}`, '--', 'tcpdump', '-i', device, '--immediate-mode', '-U', '-w', '-', 'tcp'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const chunks: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', (text: Buffer) => /listening on/.test(text.toString()) && resolve());
    child.once('exit', () => reject(new Error('tcpdump ended')));
  });
  return {
    async bytes() {
      child.kill('SIGINT');
      await ended;
      return Buffer.concat(chunks);
    },
  };
}

/** Two ztunnels, each in its pod's own namespace. */
export async function startDedicated(
  t: TestContext,
  pair: Pair,
  env: Record<string, string> = {},
): Promise<{ client: Program; server: Program }> {
  const start = (pod: TestPod): Program =>
    startProgram(t, pod.netns, 'ztunnel/main.ts', ['proxy', 'ztunnel'], { ...dedicatedEnv(pair, pod), ...env });
  const [client, server] = [start(pair.client), start(pair.server)];
  await Promise.all([client.line(/ztunnel serves/), server.line(/ztunnel serves/)]);
  return { client, server };
}

export interface Shared {
  readonly ztunnel: Program;
  readonly agent: FakeNodeAgent;
  readonly connection: AgentConnection;
  /** Where the ztunnel itself lives. */
  readonly home: TestNetns;
}

export const podInfo = ({ name }: TestPod) => ({ name, namespace: NAMESPACE, serviceAccount: name });

export interface ControlPlane {
  /** Pushes what the configuration of the pair says now. */
  apply(options: PairOptions): Promise<void>;
}

/** A control plane in the ztunnel's namespace, at port 15010 without TLS. */
export async function startControlPlane(t: TestContext, pair: Pair, home: TestNetns): Promise<ControlPlane> {
  const program = startProgram(t, home, 'test/support/control-plane-program.ts', ['15010', pair.config]);
  await program.line(/^listening/);
  let acks = 2;
  return {
    async apply(options) {
      writeFileSync(pair.config, meshYaml(pair.client, pair.server, options));
      program.kill('SIGHUP');
      acks += 2;
      await program.line(new RegExp(`^ACK nonce-${acks} `));
    },
  };
}

/** Environment of a ztunnel that a test's control plane tells what there is. */
export const controlled = { LOCAL_XDS_PATH: '', XDS_ADDRESS: 'http://127.0.0.1:15010' };

/** One ztunnel in a namespace of its own, told about both pods. */
export async function startShared(t: TestContext, pair: Pair, env: Record<string, string> = {}, home = makeNetns(t)): Promise<Shared> {
  const agent = startNodeAgent(t, join(pair.folder, 'ztunnel.sock'));
  const ztunnel = startProgram(t, home, 'ztunnel/main.ts', ['proxy', 'ztunnel'], {
    LOCAL_XDS_PATH: pair.config,
    CERT_DIR: pair.certificates,
    INPOD_UDS: agent.path,
    XDS_ADDRESS: '',
    CA_ADDRESS: '',
    ...env,
  });
  const connection = await Promise.race([
    agent.connection(0),
    ztunnel.ended.then((code): never => {
      throw new Error(`ztunnel ended with ${code}:\n${ztunnel.output()}`);
    }),
  ]);
  for (const pod of [pair.client, pair.server]) {
    const problem = await connection.add(`uid-${pod.name}`, podInfo(pod), pod.netns.netns.fd);
    if (problem !== '') throw new Error(`${pod.name}: ${problem}`);
  }
  await connection.snapshotSent();
  return { ztunnel, agent, connection, home };
}
