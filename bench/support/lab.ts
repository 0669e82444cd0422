/**
 * Two network namespaces joined by a wire, nginx and iperf3 in the far one, and programs whose processor time and memory are measured:
 * where every proxy of a bench is held against every other. Everything that is started here ends with the lab.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Usage, usageOf } from './process-usage.ts';

export const HTTP_PORT = 8080;
export const BULK_PORT = 5201;

export interface Place {
  /** Namespace of this end. */
  readonly netns: string;
  readonly ip: string;
}

export interface Program {
  readonly pid: number;
  readonly name: string;
}

let labs = 0;

export class Lab implements AsyncDisposable {
  readonly near: Place;
  readonly far: Place;
  /** For configuration and logs. */
  readonly folder: string;
  readonly #programs: { child: ChildProcess; name: string; log: string }[] = [];

  /** @throws {Error} naming what is missing: root, or a Debian package */
  constructor() {
    assertTools();
    const number = labs++;
    this.folder = mkdtempSync(join(tmpdir(), 'warren-bench-'));
    const place = (end: string, last: number): Place => ({
      netns: `warren-bench-${process.pid}-${number}-${end}`,
      ip: `10.252.${number}.${last}`,
    });
    this.near = place('near', 1);
    this.far = place('far', 2);
    for (const { netns } of [this.near, this.far]) command('ip', 'netns', 'add', netns);
    this.exec(this.near, 'ip', 'link', 'add', 'wire', 'type', 'veth', 'peer', 'name', 'wire', 'netns', this.far.netns);
    for (const end of [this.near, this.far]) {
      this.exec(end, 'ip', 'address', 'add', `${end.ip}/24`, 'dev', 'wire');
      for (const device of ['lo', 'wire']) this.exec(end, 'ip', 'link', 'set', device, 'up');
    }
  }

  /** Starts what every measurement needs in the far namespace. */
  async startServers(): Promise<void> {
    const config = join(this.folder, 'nginx.conf');
    writeFileSync(join(this.folder, '1k'), 'x'.repeat(1024));
    writeFileSync(join(this.folder, '1m'), 'x'.repeat(1 << 20));
    writeFileSync(
      config,
      `user root; worker_processes 1; daemon off; pid ${this.folder}/nginx.pid; error_log ${this.folder}/nginx.log;
worker_rlimit_nofile 20000; events { worker_connections 16384; }
http { access_log off; keepalive_requests 1000000000; client_body_temp_path ${this.folder}; proxy_temp_path ${this.folder};
fastcgi_temp_path ${this.folder}; uwsgi_temp_path ${this.folder}; scgi_temp_path ${this.folder};
server { listen ${HTTP_PORT} backlog=4096; location = / { return 200 "ok"; } location / { root ${this.folder}; } } }\n`,
    );
    this.start(this.far, 'nginx', ['nginx', '-c', config]);
    this.start(this.far, 'iperf3', ['iperf3', '-s', '-p', String(BULK_PORT)]);
    await this.waitForPort(this.far, HTTP_PORT);
    await this.waitForPort(this.far, BULK_PORT);
  }

  start(place: Place, name: string, argv: readonly string[], env: Readonly<Record<string, string>> = {}, cwd = this.folder): Program {
    const log = join(this.folder, `${name}-${this.#programs.length}.log`);
    const output = openSync(log, 'w');
    const child = spawn('nsenter', [`--net=/var/run/netns/${place.netns}`, '--', ...argv], {
      cwd,
      env: { PATH: process.env.PATH ?? '', ...env },
      stdio: ['ignore', output, output],
    });
    closeSync(output);
    if (child.pid === undefined) throw new Error(`cannot start ${name}`);
    this.#programs.push({ child, name, log });
    return { pid: child.pid, name };
  }

  /** Runs a command to its end. @returns its standard output */
  exec(place: Place, ...argv: readonly string[]): string {
    return command('nsenter', `--net=/var/run/netns/${place.netns}`, '--', ...argv);
  }

  /** The same, without blocking: programs of ours may have to answer it. */
  async run(place: Place, ...argv: readonly string[]): Promise<string> {
    const child = spawn('nsenter', [`--net=/var/run/netns/${place.netns}`, '--', ...argv], { stdio: ['ignore', 'pipe', 'pipe'] });
    const output: Buffer[] = [];
    const errors: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
    const code = await new Promise((resolve) => child.once('close', resolve));
    if (code !== 0)
      throw new Error(
        `${argv.join(' ')}: exit ${code}: ${Buffer.concat([...errors, ...output])
          .toString()
          .slice(0, 500)}${this.logs()}`,
      );
    return Buffer.concat(output).toString();
  }

  /** Waits until somebody listens there. @throws Error after 20 seconds, with the programs' last words */
  async waitForPort(place: Place, port: number): Promise<void> {
    for (let attempt = 0; attempt < 200; attempt++) {
      if (this.exec(place, 'ss', '-Hltn', `sport = :${port}`) !== '') return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`nobody listens on port ${port}${this.logs()}`);
  }

  /** What the programs have used so far: processor time together, memory of the largest. */
  usage(programs: readonly Program[]): Usage {
    const each = programs.map(({ pid, name }) => {
      if (!existsSync(`/proc/${pid}`)) throw new Error(`${name} has ended${this.logs()}`);
      return usageOf(pid);
    });
    return {
      cpuSeconds: each.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0),
      rssMegabytes: Math.max(0, ...each.map(({ rssMegabytes }) => rssMegabytes)),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = this.#programs.map(
      ({ child }) =>
        new Promise((resolve) => (child.exitCode === null && child.signalCode === null ? child.once('exit', resolve) : resolve(undefined))),
    );
    for (const { child } of this.#programs) child.kill('SIGTERM');
    const force = setTimeout(() => {
      for (const { child } of this.#programs) child.kill('SIGKILL');
    }, 2000);
    await Promise.all(ended);
    clearTimeout(force);
    for (const { netns } of [this.near, this.far]) command('ip', 'netns', 'del', netns);
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** The end of what each program has logged. */
  logs(): string {
    return this.#programs.map(({ name, log }) => `\n${name}: ${readFileSync(log, 'utf8').slice(-900)}`).join('');
  }
}

/** Commands that the labs use, and the Debian packages that bring them. */
const TOOLS: Readonly<Record<string, string>> = {
  ip: 'iproute2',
  ss: 'iproute2',
  nft: 'nftables',
  nsenter: 'util-linux',
  nginx: 'nginx-light',
  wrk: 'wrk',
  iperf3: 'iperf3',
};

function assertTools(): void {
  if (process.getuid?.() !== 0) throw new Error('this bench makes network namespaces: run it as root');
  const folders = (process.env.PATH ?? '').split(':');
  const missing = Object.keys(TOOLS).filter((tool) => !folders.some((folder) => existsSync(join(folder, tool))));
  if (missing.length > 0)
    throw new Error(`missing ${missing.join(', ')}: apt-get install ${[...new Set(missing.map((tool) => TOOLS[tool]))].join(' ')}`);
}

function command(file: string, ...argv: readonly string[]): string {
  return execFileSync(file, argv, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}
