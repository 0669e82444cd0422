/**
 * Forms of settings that all proxies have, under the names and in the notation of Istio's: optional values, threads, log levels, and where
 * the control plane is.
 */
import { availableParallelism } from 'node:os';
import { LOG_LEVELS, type LogLevel } from './log.ts';
import { count, duration, type Form, flag, SettingsError } from './settings.ts';
import { VERSION } from './version.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

export const optionalFlag: Form<boolean | undefined> = { name: 'true or false', parse: (value) => flag.parse(value) };
export const optionalCount: Form<number | undefined> = { name: 'whole number', parse: (value) => count.parse(value) };
export const optionalDuration: Form<number | undefined> = { name: 'duration', parse: (value) => duration.parse(value) };

const MAX_WORKERS = 64;

/** Threads as Istio writes them: a number, `50%` of the processors, or `0` for all of them. */
export const threadsOf = (processors: number): Form<number> => ({
  name: 'number or percentage of processors',
  parse(value) {
    const percent = /^(\d{1,3}(?:\.\d{1,6})?)%$/.exec(value)?.[1];
    if (percent !== undefined) {
      if (Number(percent) <= 0 || Number(percent) > 100) throw new Error('expected a percentage above 0 and up to 100');
      return Math.min(MAX_WORKERS, Math.max(1, Math.ceil((processors * Number(percent)) / 100)));
    }
    const number = count.parse(value);
    if (number > MAX_WORKERS) throw new Error(`expected at most ${MAX_WORKERS} threads`);
    return number === 0 ? Math.min(MAX_WORKERS, processors) : number;
  },
});

/** Of the processors that this process may use. */
export const threads: Form<number> = threadsOf(availableParallelism());

export interface LogDirectives {
  readonly level: LogLevel;
  /** Level of one scope where it differs (`access=warn`). */
  readonly scopes: Readonly<Record<string, LogLevel>>;
}

const MAX_SCOPES = 32;

/** `info`, or `info,access=warn`. Of the scopes, `access` has a level of its own; others are taken and shown. */
export const logDirectives: Form<LogDirectives> = {
  name: 'level, or level,scope=level',
  parse(value) {
    let level: LogLevel = 'info';
    const scopes: Record<string, LogLevel> = {};
    for (const directive of value.split(',').map((piece) => piece.trim())) {
      const [scope, word] = directive.includes('=') ? directive.split('=', 2) : [undefined, directive];
      const named = levelOf(word ?? '');
      if (!named) throw new Error(`expected one of ${LOG_LEVELS.join(', ')}, alone or as scope=level`);
      const target = scope?.replace(/^ztunnel::(?=access$)/, '');
      if (target === undefined || target === 'ztunnel') level = named;
      // Parts of Istio's ztunnel and of the libraries under it, which ours does not have: a filter that fits nothing filters nothing, there too.
      else if (/^[a-z][\w:.-]{0,80}$/i.test(target) && Object.keys(scopes).length < MAX_SCOPES) scopes[target] = named;
      else throw new Error(`no scope: ${target.slice(0, 100)}`);
    }
    return { level, scopes };
  },
};

/** In any case, or as a number from 0 (off) to 5 (trace), as filters of Rust's programs are written. */
function levelOf(word: string): LogLevel | undefined {
  const numbered = ['silent', 'error', 'warn', 'info', 'debug', 'trace'][/^[0-5]$/.test(word) ? Number(word) : -1] ?? word.toLowerCase();
  return LOG_LEVELS.find((known) => known === (numbered === 'off' ? 'silent' : numbered));
}

export interface ControlPlaneAddress {
  /** `host:port`. */
  readonly target: string;
  readonly tls: boolean;
  readonly root: string;
  readonly alternativeName: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
}

export interface ControlPlaneSettings {
  /** What messages call it: the setting that the address comes from. */
  readonly name: string;
  /** `http(s)://host:port`, scheme and port optional; empty for none. */
  readonly uri: string;
  readonly root: string;
  readonly alternativeName: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
}

/** @returns undefined where the address is empty @throws {SettingsError} for one that is none */
export function controlPlaneAddress({ name, uri, ...rest }: ControlPlaneSettings): ControlPlaneAddress | undefined {
  if (uri === '') return undefined;
  let url: URL;
  try {
    url = new URL(uri.includes('://') ? uri : `https://${uri}`);
  } catch {
    throw new SettingsError([`${name}=${JSON.stringify(uri)}: ${ADDRESS_FORM}`]);
  }
  const { protocol, hostname, port, username, search, hash } = url;
  if (!/^https?:$/.test(protocol) || hostname === '' || username !== '' || search !== '' || hash !== '') {
    throw new SettingsError([`${name}=${JSON.stringify(uri)}: ${ADDRESS_FORM}`]);
  }
  const tls = protocol === 'https:';
  return { target: `${hostname}:${port || (tls ? 443 : 80)}`, tls, ...rest };
}

const ADDRESS_FORM = 'expected host:port, or https://host:port';

/**
 * Settings whose names start with the prefix, as header fields.
 * @throws {SettingsError} naming every variable that cannot be one
 */
export function headerSettings(env: Environment, prefix: string): Record<string, string> {
  const found: Record<string, string> = {};
  const problems: string[] = [];
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith(prefix) || value === undefined) continue;
    const field = name.slice(prefix.length).toLowerCase();
    if (!/^[a-z0-9._-]+$/.test(field) || field.endsWith('-bin'))
      problems.push(`${name}: ${JSON.stringify(field)} is no name of a header field`);
    else if (!/^[\x20-\x7e]*$/.test(value)) problems.push(`${name}: its value has characters that a header field cannot carry`);
    else found[field] = value;
  }
  if (problems.length > 0) throw new SettingsError(problems);
  return found;
}

const stripMeta = (name: string): string => name.replace(/^ISTIO_META_/, '');

/**
 * What a proxy says of itself beside its name: ISTIO_META_* and ISTIO_METAJSON_*, prefixes stripped.
 * @param proxyMetadata of PROXY_CONFIG; the environment wins. @throws {SettingsError} naming what is no JSON
 */
export function readMetadata(env: Environment, proxyMetadata: Readonly<Record<string, string>> = {}): Record<string, unknown> {
  // What istiod shows as this proxy's version, unless somebody who swaps ztunnels says otherwise.
  const found: Record<string, unknown> = { ISTIO_VERSION: VERSION };
  const problems: string[] = [];
  for (const [name, value] of Object.entries(proxyMetadata)) found[stripMeta(name)] = value;
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined) continue;
    if (name.startsWith('ISTIO_META_')) found[stripMeta(name)] = value;
    if (!name.startsWith('ISTIO_METAJSON_')) continue;
    try {
      found[name.slice('ISTIO_METAJSON_'.length)] = JSON.parse(value);
    } catch {
      problems.push(`${name}: expected JSON`);
    }
  }
  if (problems.length > 0) throw new SettingsError(problems);
  return found;
}

/** Keeps the problems of one reader so that the next one is read as well. */
export function collect<T>(problems: string[], read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    problems.push(...error.problems);
    return undefined;
  }
}
