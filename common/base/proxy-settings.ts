/**
 * Forms of settings that all proxies have, under the names and in the notation of Istio's: optional values, threads, log levels, and where
 * the control plane is.
 */
import { availableParallelism } from 'node:os';
import { parseSocketAddress } from './address.ts';
import { LOG_LEVELS, type LogLevel } from './log.ts';
import { count, duration, type Form, flag, SettingsError } from './settings.ts';
import { VERSION } from './version.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

export const optionalFlag: Form<boolean | undefined> = { name: 'true or false', parse: (value) => flag.parse(value) };
export const optionalCount: Form<number | undefined> = { name: 'whole number', parse: (value) => count.parse(value) };
export const optionalDuration: Form<number | undefined> = { name: 'duration', parse: (value) => duration.parse(value) };

const MAX_WORKERS = 64;

/** Threads as Istio writes them: a number, `50%` of the processors, or `0` for all of them. */
export const threads: Form<number> = {
  name: 'number or percentage of processors',
  parse(value) {
    const percent = /^(\d{1,3})%$/.exec(value)?.[1];
    if (percent !== undefined) return Math.max(1, Math.ceil((availableParallelism() * Number(percent)) / 100));
    const number = count.parse(value);
    if (number > MAX_WORKERS) throw new Error(`expected at most ${MAX_WORKERS} threads`);
    return number === 0 ? availableParallelism() : number;
  },
};

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
      const named = LOG_LEVELS.find((known) => known === (word === 'off' ? 'silent' : word));
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

export interface ControlPlaneAddress {
  /** `host:port`. */
  readonly target: string;
  readonly tls: boolean;
  readonly root: string;
  readonly alternativeName: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
}

/** @param uri `http(s)://host:port`, scheme and port optional; undefined where it is empty */
export function controlPlaneAddress(
  uri: string,
  root: string,
  alternativeName: string | undefined,
  extra: Readonly<Record<string, string>>,
): ControlPlaneAddress | undefined {
  if (uri === '') return undefined;
  const tls = !uri.startsWith('http://');
  const target = uri.replace(/^https?:\/\//, '').replace(/\/+$/, '');
  const known = parseSocketAddress(target) !== undefined || /:\d+$/.test(target);
  return { target: known ? target : `${target}:${tls ? 443 : 80}`, tls, root, alternativeName, headers: extra };
}

/** Settings whose names start with the prefix, as header fields. */
export function headerSettings(env: Environment, prefix: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (name.startsWith(prefix) && value !== undefined) found[name.slice(prefix.length).toLowerCase()] = value;
  }
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
