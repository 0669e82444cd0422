/**
 * Where a proxy's processor time goes while it is under load, by `perf`: the kernel, TLS, and what a runtime or the program itself does. It is
 * taken in a run of its own, since looking costs time too, and only where a row misses its target and somebody asks for it (`--profile`).
 */
import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { Subject } from './load.ts';
import { isInstalled } from './reverse-proxies.ts';

/** One line of `perf report`: percent of the samples, thread, program or library, `k` for the kernel, function. */
export interface Sample {
  readonly percent: number;
  readonly thread: string;
  readonly binary: string;
  readonly inKernel: boolean;
  readonly symbol: string;
}

/** By what part of a program it is; the first that fits. */
const PARTS: readonly (readonly [part: string, holds: (sample: Sample) => boolean])[] = [
  ['kernel', ({ inKernel }) => inKernel],
  [
    'compiling (V8)',
    ({ symbol }) => /v8::.*(compiler|maglev|turboshaft|baseline|interpreter|pars(er|ing)|Optimiz|Compil|Deopt)/i.test(symbol),
  ],
  [
    'collecting garbage',
    ({ symbol, thread }) =>
      /v8::.*(Scaveng|Mark|Sweep|Evacuat|Heap|GlobalHandles|RootVisitor|NewSpace)/.test(symbol) || thread.startsWith('node-V8'),
  ],
  ['JavaScript, compiled', ({ binary, symbol }) => /\[JIT\]|\/perf-\d+\.map|^\/\/anon|memfd/.test(binary) || symbol.startsWith('JS:')],
  ["V8's built-in functions and runtime", ({ symbol }) => /^Builtins_|v8::|v8impl/.test(symbol)],
  ['TLS', ({ symbol }) => /aws_lc|rustls|openssl|ssl|^(tls|aes|gcm|evp|bio|crypto|ossl|err_|cipher|wpacket|rec_)/i.test(symbol)],
  ['Node and libuv', ({ symbol, binary }) => /node::|\buv_|^napi_/.test(symbol) || binary === 'koffi.node'],
  ['HTTP/2', ({ symbol }) => /\bh2::|\bhttp::/.test(symbol)],
  ['memory and C library', ({ binary, symbol }) => binary.startsWith('lib') || /malloc|free|_rjem|dallocx|rallocx/.test(symbol)],
];
const REST = 'the rest of the program';

const SAMPLES_PER_SECOND = 997;

/** Shares of the samples by part, which add up to 1 but for what perf itself leaves out. */
export function partsOf(samples: Iterable<Sample>): Map<string, number> {
  const shares = new Map<string, number>();
  for (const sample of samples) {
    const part = PARTS.find(([, holds]) => holds(sample))?.[0] ?? REST;
    shares.set(part, (shares.get(part) ?? 0) + sample.percent / 100);
  }
  return shares;
}

/** Reads what `perf report --sort comm,dso,sym` prints; other lines are passed over. */
export function* readReport(text: string): Iterable<Sample> {
  for (const line of text.split('\n')) {
    const [, percent, thread, binary, level, symbol] = /^\s+([\d.]+)%\s+(\S+)\s+(.*?)\s+\[(.)\]\s+(.*?)\s*$/.exec(line) ?? [];
    if (percent === undefined) continue;
    yield { percent: Number(percent), thread: thread ?? '', binary: binary ?? '', inKernel: level === 'k', symbol: symbol ?? '' };
  }
}

/** @throws {Error} where perf is not installed */
export function assertPerf(): void {
  if (!isInstalled('perf')) throw new Error('--profile wants perf: apt-get install linux-perf');
}

/**
 * Runs the load and looks at the subject's proxies meanwhile.
 * @param load resolves with the processor time of a request, in microseconds
 * @returns microseconds of a request by part
 */
export async function profile({ lab, proxies, name }: Subject, load: () => Promise<number>): Promise<Map<string, number>> {
  const file = join(lab.folder, `profile-${name}`);
  const pids = proxies.map(({ pid }) => pid).join(',');
  const perf = spawn('perf', ['record', '-q', '-F', String(SAMPLES_PER_SECOND), '-p', pids, '-o', file], { stdio: 'ignore' });
  const ended = new Promise((resolve) => perf.once('close', resolve));
  let micros: number;
  try {
    micros = await load();
  } finally {
    perf.kill('SIGINT');
    await ended;
  }
  const report = spawnSync('perf', ['report', '-i', file, '--stdio', '--no-children', '--sort', 'comm,dso,sym'], {
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  });
  if (report.status !== 0) throw new Error(`perf report: ${report.stderr.slice(-500)}`);
  const shares = partsOf(readReport(report.stdout));
  return new Map([...shares].map(([part, share]) => [part, share * micros]));
}
