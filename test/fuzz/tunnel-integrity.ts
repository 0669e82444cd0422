/**
 * Sends random amounts both ways through real sockets and TLS, with random windows, frame sizes, write sizes and slow readers, and compares
 * every byte: buffers are used again all over the data path, and this is what notices one that was used too early.
 * `node test/fuzz/tunnel-integrity.ts [SECONDS]`; a failure prints the limits of its round.
 */
import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import { systemClock as clock } from '../../common/base/clock.ts';
import { AppSocket } from '../../common/hbone/app-socket.ts';
import { heldPieces } from '../../common/hbone/byte-queue.ts';
import { HbonePool } from '../../common/hbone/pool.ts';
import { lentReadBuffers } from '../../common/hbone/read-buffers.ts';
import { relay } from '../../common/hbone/relay.ts';
import { HboneServerConnection } from '../../common/hbone/server.ts';
import { Lane } from '../../common/hbone/turn-shares.ts';
import { defaultClientLimits, defaultServerLimits, type HboneLimits } from '../../common/hbone/types.ts';
import { ignoreServerName, MESH_ALPN, meshContextOptions } from '../../common/tls/mesh-tls.ts';
import { testAuthority } from '../support/certificates.ts';
import { pattern, portOf } from '../support/tunnels.ts';
import { isProgram, secondsOf } from './campaign.ts';

/** What one connection's two ends send: a range of the pattern each. */
interface Plan {
  readonly up: Buffer;
  readonly down: Buffer;
  readonly calleeDone: PromiseWithResolvers<void>;
}

const LARGEST = 2 << 20;
/** Two, so that turns are shared and what is beyond a share waits. */
const LANES = [new Lane(), new Lane()] as const;
const BYTES = pattern(LARGEST * 2);
const ROUND_TIMEOUT_MS = 60_000;

const tlsOptions = {
  ...meshContextOptions(testAuthority().issue('spiffe://cluster.local/ns/a/sa/a'), { postQuantumOnly: false }),
  ALPNProtocols: MESH_ALPN,
  checkServerIdentity: ignoreServerName,
};

const below = (n: number): number => Math.floor(Math.random() * n);
const pick = <T>(first: T, ...more: T[]): T => [first, ...more][below(more.length + 1)] ?? first;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const anyLimits = (): Partial<HboneLimits> => ({
  maxFrameSize: pick(16_384, 16_384, 65_536, 1 << 20),
  streamWindow: pick(5_000, 65_535, 300_000, 4 << 20),
  connectionWindow: pick(65_535, 1 << 20, 16 << 20),
});

function anyBytes(): Buffer {
  const length = pick(0, 10, 60_000, below(LARGEST));
  const at = below(LARGEST);
  return BYTES.subarray(at, at + length);
}

async function send(socket: net.Socket, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + pick(1, 100, 5_000, 50_000, 70_000, 300_000));
    if (!socket.write(bytes.subarray(at, end))) await once(socket, 'drain');
    at = end;
    if (below(30) === 0) await pause(1);
  }
  socket.end();
}

/** @throws Error where what arrives is not what was sent */
async function expectBytes(socket: net.Socket, bytes: Buffer, who: string): Promise<void> {
  const slow = below(3) === 0;
  let at = 0;
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    if (Buffer.compare(chunk, bytes.subarray(at, at + chunk.length)) !== 0)
      throw new Error(`${who}: bytes differ after ${at} of ${bytes.length}`);
    at += chunk.length;
    if (slow && below(20) === 0) await pause(below(5));
  }
  if (at !== bytes.length) throw new Error(`${who}: ${at} bytes of ${bytes.length}`);
}

async function listening(server: net.Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return portOf(server);
}

/** The callee: reads its plan's number, sends and compares. */
function startCallee(plans: readonly Plan[]): net.Server {
  return net.createServer({ allowHalfOpen: true }, async (socket) => {
    await once(socket, 'readable');
    // One byte, because windows may let through a part of anything longer.
    const head: Buffer | null = socket.read(1);
    const plan = head ? plans[head.readUInt8(0)] : undefined;
    if (!plan) throw new Error('a connection without a plan');
    const both = Promise.all([send(socket, plan.down), expectBytes(socket, plan.up, 'callee')]);
    both.then(() => plan.calleeDone.resolve(), plan.calleeDone.reject);
  });
}

async function call(port: number, index: number, { up, down, calleeDone }: Plan): Promise<void> {
  const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  socket.write(Buffer.of(index));
  await Promise.all([send(socket, up), expectBytes(socket, down, 'caller'), calleeDone.promise]);
  socket.destroy();
}

/** One pair of ends with limits of their own, and some connections through them. @throws naming what differed */
export async function integrityRound(connections: number): Promise<void> {
  const [serverLimits, clientLimits] = [anyLimits(), anyLimits()];
  const plans = Array.from(
    { length: connections },
    (): Plan => ({ up: anyBytes(), down: anyBytes(), calleeDone: Promise.withResolvers<void>() }),
  );
  const callee = startCallee(plans);
  const calleePort = await listening(callee);
  const ends: HboneServerConnection[] = [];
  const server = tls.createServer({ ...tlsOptions, requestCert: true }, (socket) => {
    const onConnect = async (
      request: Parameters<ConstructorParameters<typeof HboneServerConnection>[1]['onConnect']>[0],
    ): Promise<void> => {
      const app = await AppSocket.connect(
        undefined,
        { ip: '127.0.0.1', port: calleePort },
        { timeoutMs: 10_000, clock, lane: pick(...LANES) },
      );
      relay(request.accept([]), app);
    };
    const limits = { ...defaultServerLimits, ...serverLimits };
    ends.push(new HboneServerConnection(socket, { limits, clock, onConnect: (request) => void onConnect(request), onClose() {} }));
  });
  const to = { ip: '127.0.0.1', port: await listening(server) };
  const pool = new HbonePool({
    clock,
    limits: { ...defaultClientLimits, ...clientLimits },
    maxStreamsPerConnection: pick(1, 3, 100),
    unusedReleaseMs: 60_000,
    async dial() {
      const socket = tls.connect({ ...tlsOptions, host: to.ip, port: to.port });
      await once(socket, 'secureConnect');
      return socket;
    },
  });
  const listener = net.createServer({ pauseOnConnect: true }, async (socket) => {
    const app = AppSocket.accepted(socket, pick(...LANES));
    relay(app, await pool.connect({ source: 'a', destinations: ['b'], to, sourceIp: to.ip }, { authority: 'b:1', headers: [] }));
  });
  const port = await listening(listener);
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error('stuck')), ROUND_TIMEOUT_MS);
  try {
    await Promise.race([Promise.all(plans.map((plan, i) => call(port, i, plan))), late.promise]);
    for (let turn = 0; turn < 100 && lentReadBuffers() + heldPieces() > 0; turn++) await pause(5);
    if (lentReadBuffers() > 0) throw new Error(`${lentReadBuffers()} read buffers are left`);
    if (heldPieces() > 0) throw new Error(`${heldPieces()} pieces are still held`);
  } catch (error) {
    throw new Error(`server ${JSON.stringify(serverLimits)}, client ${JSON.stringify(clientLimits)}`, { cause: error });
  } finally {
    clearTimeout(timer);
    pool.destroy();
    for (const end of ends) end.destroy();
    for (const each of [callee, server, listener]) each.close();
  }
}

if (isProgram(import.meta.url)) {
  const until = performance.now() + secondsOf(process.argv[2], 10) * 1000;
  let rounds = 0;
  while (performance.now() < until) {
    await integrityRound(pick(1, 4, 12));
    rounds++;
  }
  console.log(`${rounds} rounds`);
}
