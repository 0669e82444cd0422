/** The CNI plugin's executable, built as it is shipped, in a folder of the test's, called as a container runtime calls it. */
import { execFileSync, spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { CacheContent } from '../../cni/plugin/cache.ts';
import { root } from './playground.ts';

export interface PluginAnswer {
  readonly status: number;
  /** Standard output, as JSON where it is any. */
  readonly output: unknown;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

export interface TestPlugin {
  readonly folder: string;
  /** Of the agent's socket. */
  readonly runDir: string;
  readonly socket: string;
  readonly executable: string;
  /** What the agent left behind. */
  leave(content: Partial<CacheContent>): void;
  /** @param environment on top of what a runtime sets for a pod shop/orders-1. @param config on top of a usable one; text is taken as it is */
  call(command: string, config?: object | string, environment?: Record<string, string>): Promise<PluginAnswer>;
  tool(...argv: readonly string[]): Promise<PluginAnswer>;
  /** An agent that says what the test says; `say` gets the request and returns the raw answer. */
  agent(say: (request: string) => string | undefined): Promise<string[]>;
}

let built: string | undefined;

/** @throws where it cannot be built */
export function buildPlugin(): string {
  built ??= execFileSync(join(root, 'scripts/plugin'), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
  return built;
}

export const PREV_RESULT = {
  cniVersion: '1.0.0',
  interfaces: [{ name: 'eth0', sandbox: '/var/run/netns/x' }],
  ips: [{ address: '10.0.1.7/24', gateway: '10.0.1.1', interface: 0 }, { address: 'fd00::7/64' }],
  dns: {},
  custom: { kept: true },
};

export function testPlugin(t: TestContext): TestPlugin {
  const folder = mkdtempSync(join(tmpdir(), 'warren-plugin-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const runDir = join(folder, 'run');
  const socket = join(runDir, 'pluginevent.sock');
  const executable = join(folder, 'bin/istio-cni');
  for (const name of ['run', 'bin']) mkdirSync(join(folder, name));
  copyFileSync(buildPlugin(), executable);
  const usable = {
    cniVersion: '1.0.0',
    name: 'net',
    type: 'istio-cni',
    cni_agent_run_dir: runDir,
    exclude_namespaces: ['legacy'],
    pod_namespace: 'istio-system',
  };
  return {
    folder,
    runDir,
    socket,
    executable,
    leave(content) {
      mkdirSync(join(folder, 'bin/istio-cni.d'), { recursive: true, mode: 0o700 });
      const whole = { version: 1, askTimeoutMs: 1000, excludeNamespaces: [], namespaces: {}, pods: {}, ...content };
      writeFileSync(join(folder, 'bin/istio-cni.d/cache.json'), JSON.stringify(whole), { mode: 0o600 });
    },
    call: (command, config = {}, environment = {}) =>
      run(executable, [], typeof config === 'string' ? config : JSON.stringify({ ...usable, prevResult: PREV_RESULT, ...config }), {
        CNI_COMMAND: command,
        CNI_CONTAINERID: 'c1',
        CNI_NETNS: '/var/run/netns/x',
        CNI_IFNAME: 'eth0',
        CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=orders-1;K8S_POD_UID=uid-1',
        CNI_PATH: '/opt/cni/bin',
        ...environment,
      }),
    tool: (...argv) => run(executable, argv, '', {}),
    async agent(say) {
      const requests: string[] = [];
      const server: Server = createServer((connection) => {
        let text = '';
        connection.on('error', () => undefined);
        connection.setEncoding('utf8').on('data', (piece: string) => {
          text += piece;
          const length = /content-length: (\d+)/i.exec(text)?.[1];
          const body = text.split('\r\n\r\n')[1];
          if (length === undefined || body === undefined || Buffer.byteLength(body) < Number(length)) return;
          requests.push(text);
          const answer = say(text);
          if (answer !== undefined) connection.end(answer);
        });
        t.after(() => void connection.destroy());
      });
      t.after(() => new Promise((resolve) => server.close(resolve)));
      await new Promise<void>((resolve) => server.listen(socket, resolve));
      return requests;
    },
  };
}

/** An answer as the node agent's server writes it. */
export const httpAnswer = (status: number, body = ''): string => `HTTP/1.1 ${status} X\r\ncontent-type: text/plain\r\n\r\n${body}`;

function run(file: string, argv: readonly string[], input: string, env: Record<string, string>): Promise<PluginAnswer> {
  return new Promise((resolve, reject) => {
    const started = performance.now();
    const child = spawn(file, argv, { env, stdio: 'pipe' });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
    child.on('error', reject);
    child.on('close', (status) =>
      resolve({ status: status ?? -1, output: parse(stdout), stdout, stderr, ms: performance.now() - started }),
    );
  });
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
