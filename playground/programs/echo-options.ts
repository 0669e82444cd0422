/** The echo program's command lines. Pure. */

export interface ServerOptions {
  readonly http: readonly number[];
  readonly grpc: readonly number[];
  readonly tcp: readonly number[];
  /** Of `http` and `tcp`: those that speak TLS. */
  readonly tls: readonly number[];
  /** Of `tcp`: those that greet before they are spoken to; all of them without a number. */
  readonly serverFirst: readonly number[] | 'all';
  readonly crt: string | undefined;
  readonly key: string | undefined;
  readonly version: string;
  readonly cluster: string;
  readonly bindLocalhost: readonly number[];
}

export interface ClientOptions {
  readonly scheme: string;
  readonly url: URL;
  /** The path as it was written: `URL` would normalise it. */
  readonly path: string;
  readonly method: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly count: number;
  /** Requests that begin in a second; undefined: as they can. */
  readonly perSecond: number | undefined;
  readonly timeoutMs: number;
  readonly message: string;
  readonly serverFirst: boolean;
  readonly http2: boolean;
}

const DEFAULT_PORTS = { http: 8080, grpc: 7070, tcp: 9090 } as const;
const MOST_REQUESTS = 100_000;

/** @throws {Error} naming the argument */
export function parseServerOptions(argv: readonly string[]): ServerOptions {
  const flags = readFlags(argv, new Set(['server-first']));
  const ports = (name: string, fallback: readonly number[]): number[] => {
    const values = flags.take(name);
    return values.length === 0 ? [...fallback] : values.flatMap((value) => value.split(',')).map((value) => port(name, value));
  };
  const first = flags.take('server-first');
  const options: ServerOptions = {
    http: ports('port', [DEFAULT_PORTS.http]),
    grpc: ports('grpc', [DEFAULT_PORTS.grpc]),
    tcp: ports('tcp', [DEFAULT_PORTS.tcp]),
    tls: ports('tls', []),
    serverFirst: first.includes('') ? 'all' : first.map((value) => port('server-first', value)),
    crt: flags.take('crt').at(-1),
    key: flags.take('key').at(-1),
    version: flags.take('version').at(-1) ?? '',
    cluster: flags.take('cluster').at(-1) ?? '',
    bindLocalhost: ports('bind-localhost', []),
  };
  // Of the original application's, and without meaning here.
  for (const ignored of ['metrics', 'istio-version', 'disable-alpn', 'bind-ip']) flags.take(ignored);
  flags.finish();
  return options;
}

/** @throws {Error} naming the argument */
export function parseClientOptions(argv: readonly string[]): ClientOptions {
  const flags = readFlags(argv, new Set(['server-first', 'http2', 'insecure-skip-verify']));
  const [text, ...more] = flags.words;
  if (text === undefined || more.length > 0) throw new Error(`usage: client URL [--method=M] [-H Name:Value]… [--count=N] [--qps=N]`);
  const match = /^([a-z0-9]+):\/\/([^/?]*)(.*)$/.exec(text);
  if (!match) throw new Error(`${JSON.stringify(text)} is no URL`);
  const [, scheme = '', authority = '', rest = ''] = match;
  if (!['http', 'https', 'grpc', 'tcp'].includes(scheme)) throw new Error(`${text}: scheme ${scheme} is not http, https, grpc or tcp`);
  const headers = [...flags.take('H'), ...flags.take('header')].map((header): [string, string] => {
    const colon = header.indexOf(':');
    if (colon < 1) throw new Error(`-H ${header}: expected Name:Value`);
    return [header.slice(0, colon), header.slice(colon + 1).trim()];
  });
  const count = Number(flags.take('count').at(-1) ?? 1);
  if (!Number.isInteger(count) || count < 1 || count > MOST_REQUESTS) throw new Error(`--count: expected 1 to ${MOST_REQUESTS}`);
  const qps = Number(flags.take('qps').at(-1) ?? 0);
  if (!(qps >= 0)) throw new Error('--qps: expected a number');
  const perSecond = qps === 0 ? undefined : qps;
  const options: ClientOptions = {
    scheme,
    // Every scheme is parsed as http's, whose rules for hosts and ports are the known ones.
    url: new URL(`${scheme === 'https' ? 'https' : 'http'}://${authority}`),
    path: rest === '' ? '/' : rest.startsWith('/') ? rest : `/${rest}`,
    method: flags.take('method').at(-1) ?? 'GET',
    headers,
    count,
    perSecond,
    timeoutMs: durationMs(flags.take('timeout').at(-1) ?? '5s'),
    message: flags.take('msg').at(-1) ?? 'HelloWorld',
    serverFirst: flags.take('server-first').length > 0,
    http2: flags.take('http2').length > 0,
  };
  for (const ignored of ['insecure-skip-verify', 'alpn', 'server-name']) flags.take(ignored);
  flags.finish();
  return options;
}

/** `1s`, `250ms`, `1.5s`. @throws {Error} */
export function durationMs(text: string): number {
  const pieces = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m)/g)];
  if (pieces.length === 0 || pieces.map(([piece]) => piece).join('') !== text)
    throw new Error(`${JSON.stringify(text)} is no duration such as 1s or 250ms`);
  return pieces.reduce((sum, [, amount, unit]) => sum + Number(amount) * (unit === 'ms' ? 1 : unit === 's' ? 1000 : 60_000), 0);
}

function port(name: string, text: string): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number < 1 || number > 65_535) throw new Error(`--${name}=${text}: expected a port`);
  return number;
}

interface Flags {
  readonly words: readonly string[];
  /** All values of a flag, which then counts as known; '' where it had none. */
  take(name: string): string[];
  /** @throws {Error} for a flag that nobody took */
  finish(): void;
}

function readFlags(argv: readonly string[], lonely: ReadonlySet<string>): Flags {
  const words: string[] = [];
  const values = new Map<string, string[]>();
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? '';
    const match = /^--?([A-Za-z0-9-]+)(?:=(.*))?$/s.exec(word);
    if (!match) {
      words.push(word);
      continue;
    }
    const [, name = '', attached] = match;
    const value = attached ?? (lonely.has(name) ? '' : (argv[++i] ?? ''));
    values.set(name, [...(values.get(name) ?? []), value]);
  }
  return {
    words,
    take(name) {
      const taken = values.get(name) ?? [];
      values.delete(name);
      return taken;
    },
    finish() {
      for (const name of values.keys()) throw new Error(`unknown argument --${name}`);
    },
  };
}
