/** The load of a bench: wrk and iperf3 through whatever stands between the namespaces, and what that cost in processor time. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab, Program } from './lab.ts';

/** One way through a lab. */
export interface Subject {
  readonly name: string;
  readonly lab: Lab;
  /** Whose processor time counts. */
  readonly proxies: readonly Program[];
  /** Where the load goes, as seen from the near namespace. */
  readonly http: { readonly ip: string; readonly port: number };
  readonly bulk: { readonly ip: string; readonly port: number };
}

export interface HttpResult {
  readonly perSecond: number;
  readonly cpuMicros: number;
  readonly p50Micros: number;
  readonly p99Micros: number;
}

export interface BulkResult {
  readonly gigabitsPerSecond: number;
  readonly cpuSecondsPerGib: number;
}

/** Requests over connections that are kept, or over a new one for each. */
export async function loadHttp(
  { name, lab, proxies, http }: Subject,
  connections: number,
  seconds: number,
  keepAlive: boolean,
  path = '/',
): Promise<HttpResult> {
  await digested(lab, proxies);
  const before = lab.usage(proxies);
  const output = await lab.run(
    lab.near,
    'wrk',
    '-t1',
    `-c${connections}`,
    `-d${seconds}s`,
    // What waits longer than wrk's two seconds is a slow request, and counted as one, not a failed one.
    '--timeout',
    '10s',
    '--latency',
    ...(keepAlive ? [] : ['-H', 'Connection: close']),
    `http://${http.ip}:${http.port}${path}`,
  );
  const after = lab.usage(proxies);
  const requests = Number(/(\d+) requests in/.exec(output)?.[1]);
  const failed = /Non-2xx or 3xx responses: (\d+)/.exec(output)?.[1];
  const broken = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(output);
  // wrk counts the end of a connection that it asked to be closed among the read errors of some versions; connects and timeouts are real.
  if (failed !== undefined || (broken && Number(broken[1]) + Number(broken[4]) > 0) || !(requests > 0))
    throw new Error(`requests failed (${name}):\n${output}${lab.logs()}`);
  return {
    perSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(output)?.[1]),
    cpuMicros: ((after.cpuSeconds - before.cpuSeconds) * 1e6) / requests,
    p50Micros: micros(/^\s+50%\s+(\S+)/m.exec(output)?.[1]),
    p99Micros: micros(/^\s+99%\s+(\S+)/m.exec(output)?.[1]),
  };
}

export interface OpenLoopResult {
  readonly p50Micros: number;
  readonly p99Micros: number;
}

/** Requests at a fixed rate over kept connections (programs/open-loop.ts). */
export async function loadOpenLoop(
  { lab, proxies, http }: Subject,
  { connections, perSecond, seconds }: { readonly connections: number; readonly perSecond: number; readonly seconds: number },
): Promise<OpenLoopResult> {
  await digested(lab, proxies);
  const program = join(import.meta.dirname, '../programs/open-loop.ts');
  const numbers = [http.port, connections, Math.round(perSecond), seconds].map(String);
  const { p50, p99, requests }: { p50: number; p99: number; requests: number } = JSON.parse(
    await lab.run(lab.near, process.execPath, program, http.ip, ...numbers),
  );
  // What is missing here would be the slowest.
  if (requests < perSecond * (seconds - 0.6) * 0.99) throw new Error(`${requests} answers, not ${perSecond} a second for ${seconds} s`);
  return { p50Micros: p50, p99Micros: p99 };
}

const HTTP2_STREAMS = 32;

/** HTTP/2 with prior knowledge, 32 requests at once on each connection. */
export async function loadHttp2({ lab, proxies, http }: Subject, connections: number, seconds: number, path = '/'): Promise<HttpResult> {
  await digested(lab, proxies);
  const log = join(lab.folder, 'h2load.log');
  const url = `http://${http.ip}:${http.port}${path}`;
  const before = lab.usage(proxies);
  const output = await lab.run(
    lab.near,
    'h2load',
    `-c${connections}`,
    `-m${HTTP2_STREAMS}`,
    '-t1',
    `-D${seconds}`,
    `--log-file=${log}`,
    url,
  );
  const after = lab.usage(proxies);
  const requests = Number(/requests: (\d+) total/.exec(output)?.[1]);
  const failed = Number(/(\d+) failed/.exec(output)?.[1]);
  if (!(requests > 0) || failed > 0) throw new Error(`requests failed:\n${output}`);
  // A line for each request: when it began, its status, its duration in microseconds.
  const durations = Float64Array.from(readFileSync(log, 'utf8').trimEnd().split('\n'), (line) => Number(line.split('\t')[2])).sort();
  rmSync(log);
  return {
    perSecond: Number(/finished in [^,]+, ([\d.]+) req/.exec(output)?.[1]),
    cpuMicros: ((after.cpuSeconds - before.cpuSeconds) * 1e6) / requests,
    p50Micros: durations[Math.floor(durations.length * 0.5)] ?? Number.NaN,
    p99Micros: durations[Math.floor(durations.length * 0.99)] ?? Number.NaN,
  };
}

/** Requests at a rate that does not wait for answers, over 64 kept connections of HTTP/1.1. @returns what one of a hundred waits longer than */
export async function loadAtRate({ lab, http }: Subject, perSecond: number, seconds: number, path: string): Promise<number> {
  const log = join(lab.folder, 'h2load.log');
  const rate = Math.max(1, Math.round(perSecond / OPEN_LOOP_CONNECTIONS));
  const url = `http://${http.ip}:${http.port}${path}`;
  const argv = ['--h1', `-c${OPEN_LOOP_CONNECTIONS}`, '-m1', '-t1', `--rps=${rate}`, `-D${seconds}`, `--log-file=${log}`, url];
  await lab.run(lab.near, 'h2load', ...argv);
  const durations = Float64Array.from(readFileSync(log, 'utf8').trimEnd().split('\n'), (line) => Number(line.split('\t')[2])).sort();
  rmSync(log);
  return durations[Math.floor(durations.length * 0.99)] ?? Number.NaN;
}

const OPEN_LOOP_CONNECTIONS = 64;

/** Opens so many connections, asks once on each, and leaves them open. @returns the proxies' memory in megabytes then */
export async function loadIdle({ lab, proxies, http }: Subject, connections: number, path: string): Promise<number> {
  const done = join(lab.folder, 'idle');
  const text = `GET ${path} HTTP/1.1\\r\\nHost: app.example\\r\\n\\r\\n`;
  const program = `
    const [net, fs] = [require('node:net'), require('node:fs')];
    let [begun, asked] = [0, 0];
    const next = () => {
      if (begun++ >= ${connections}) return;
      const socket = net.connect(${http.port}, '${http.ip}', () => socket.write('${text}'));
      socket.on('error', () => process.exit(1));
      socket.once('data', () => { next(); if (++asked === ${connections}) fs.writeFileSync('${done}', ''); });
    };
    for (let i = 0; i < 64; i++) next();`;
  lab.start(lab.near, 'idle', [process.execPath, '-e', program]);
  for (let attempt = 0; attempt < 300 && !existsSync(done); attempt++) await new Promise((resolve) => setTimeout(resolve, 100));
  if (!existsSync(done)) throw new Error(`${connections} connections were not open after 30 s`);
  await digested(lab, proxies);
  return lab.usage(proxies).rssMegabytes;
}

export async function loadBulk({ lab, proxies, bulk }: Subject, streams: number, seconds: number): Promise<BulkResult> {
  await digested(lab, proxies);
  const before = lab.usage(proxies);
  const output = await lab.run(
    lab.near,
    'iperf3',
    '-J',
    '-c',
    bulk.ip,
    '-p',
    String(bulk.port),
    '-P',
    String(streams),
    '-t',
    String(seconds),
  );
  const after = lab.usage(proxies);
  const report: { end?: { sum_received?: { bytes: number; bits_per_second: number } } } = JSON.parse(output);
  const received = report.end?.sum_received;
  if (!received) throw new Error(`iperf3 reported nothing: ${output.slice(0, 500)}`);
  return {
    gigabitsPerSecond: received.bits_per_second / 1e9,
    cpuSecondsPerGib: (after.cpuSeconds - before.cpuSeconds) / (received.bytes / 2 ** 30),
  };
}

/** Waits until the proxies are done with the measurement before: hundreds of connections that end all at once are work too. */
async function digested(lab: Lab, proxies: readonly Program[]): Promise<void> {
  for (let attempt = 0; attempt < 25; attempt++) {
    const { cpuSeconds } = lab.usage(proxies);
    await new Promise((resolve) => setTimeout(resolve, 200));
    if (lab.usage(proxies).cpuSeconds - cpuSeconds <= 0.02) return;
  }
}

/** `94.00us`, `1.46ms`, `2.10s`. */
function micros(text: string | undefined): number {
  const [, number, unit] = /^([\d.]+)(us|ms|s)$/.exec(text ?? '') ?? [];
  return Number(number) * ({ us: 1, ms: 1e3, s: 1e6 }[unit ?? ''] ?? Number.NaN);
}
