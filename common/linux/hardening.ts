/**
 * What a component gives up before it does anything else, because it holds keys or capabilities: being debugged, being dumped, being changed
 * by its environment. Whoever may change a pod's manifest can do all of it anyway; this is against everybody else, and against accidents
 * such as a variable that a base image or a mutating webhook brings along.
 */
import { call, libc, PR_SET_DUMPABLE, RLIMIT_CORE } from './libc.ts';
import { type Ability, installSeccompFilter } from './seccomp.ts';

/**
 * Variables by which Node, or the OpenSSL in it, loads other code, trusts other roots, trusts nobody's certificate, or writes down what it does
 * (nodejs.org/api/cli.html). Not all that begins with NODE_: NODE_NAME is a Kubernetes node's.
 */
const REFUSED_VARIABLES = [
  'NODE_OPTIONS',
  'NODE_PATH',
  'NODE_EXTRA_CA_CERTS',
  'NODE_TLS_REJECT_UNAUTHORIZED',
  'NODE_USE_ENV_PROXY',
  'NODE_DEBUG',
  'NODE_DEBUG_NATIVE',
  'NODE_V8_COVERAGE',
  'NODE_REDIRECT_WARNINGS',
  'NODE_REPL_EXTERNAL_MODULE',
  'OPENSSL_CONF',
  'OPENSSL_MODULES',
  'SSL_CERT_FILE',
  'SSL_CERT_DIR',
] as const;

/** Flags of Node by which somebody could look into the process, or it would write down its memory or its keys. */
const REFUSED_FLAGS =
  /^--(inspect|debug|heap-prof|cpu-prof|prof$|heapsnapshot|report-|diagnostic-dir|tls-keylog|experimental-inspector|abort-on-uncaught-exception)/;

/** The process was started in a way that a component refuses; the message names each variable and flag. */
export class HardeningError extends Error {}

export interface ProcessStart {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Node's own arguments (`process.execArgv`). */
  readonly execArgv: readonly string[];
  /** What this component cannot do without. */
  readonly keep: readonly Ability[];
}

/** @returns what is wrong with how the process was started, one sentence each. Pure */
export function startProblems({ env, execArgv }: Omit<ProcessStart, 'keep'>): string[] {
  return [
    ...REFUSED_VARIABLES.filter((name) => env[name] !== undefined).map(
      (name) => `the variable ${name} is set, which would change Node itself`,
    ),
    ...execArgv
      .filter((flag) => REFUSED_FLAGS.test(flag))
      .map((flag) => `the flag ${flag.split('=')[0]} would show the process's memory or keys`),
  ];
}

/**
 * For the main thread, first of all: no inspector at SIGUSR1 (also where `--disable-sigusr1` was forgotten), no core dump, no other process of
 * the same user that reads our memory, no diagnostic report, no system call that the component never makes.
 * @throws {HardeningError} where the process was started otherwise; {LinuxError}
 */
export function hardenProcess(start: ProcessStart): void {
  const problems = startProblems(start);
  if (problems.length > 0) throw new HardeningError(`refusing to start: ${problems.join('; ')}; take it out of the pod's manifest`);
  // A listener takes the signal away from Node, which would open the debugger's port.
  process.on('SIGUSR1', () => undefined);
  if (process.report) {
    process.report.reportOnFatalError = false;
    process.report.reportOnSignal = false;
    process.report.reportOnUncaughtException = false;
  }
  // Two zero words: soft and hard, so that nobody raises it again.
  call('setrlimit', 'RLIMIT_CORE', () => libc.setrlimit(RLIMIT_CORE, Buffer.alloc(16)));
  call('prctl', 'PR_SET_DUMPABLE', () => libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
  installSeccompFilter(start.keep);
}
