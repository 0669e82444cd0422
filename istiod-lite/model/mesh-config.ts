/**
 * What holds for the mesh as a whole and may change while it runs: the key `mesh` of the ConfigMap `istio` in the control plane's namespace
 * (Istio, mesh/v1alpha1/config.proto). Fields that have no effect here are named, so that nobody believes in them.
 */
import yaml from 'js-yaml';
import { errorMessage } from '../../common/base/errors.ts';
import type { OutboundTrafficPolicy } from '../../common/decision/mesh-view.ts';
import { type ExtensionProvider, PROMETHEUS, readProvider, STDOUT } from './extension-providers.ts';
import { at, isRecord, quote, type Report, records, text, texts } from './objects.ts';

export interface MeshConfig {
  /** By name; those of Istio that need no configuration (`prometheus`, `envoy`) are always there. */
  readonly extensionProviders: ReadonlyMap<string, ExtensionProvider>;
  /** Names of providers that telemetry goes to where no object names others. */
  readonly defaultProviders: {
    readonly tracing: readonly string[];
    readonly metrics: readonly string[];
    readonly accessLogging: readonly string[];
  };
  /** `accessLogFile`; empty where it says nothing, and then waypoints write lines of our own form. */
  readonly accessLogFile: string;
  /** `accessLogFormat`: text with Envoy's operators, or JSON with such texts; empty for Istio's. */
  readonly accessLogFormat: string;
  readonly accessLogEncoding: 'TEXT' | 'JSON';
  /** Whether anything is traced at all. */
  readonly enableTracing: boolean;
  /** Per cent of requests that are traced where no object says how many (`defaultConfig.tracing.sampling`). */
  readonly tracingSampling: number;
  /** Of namespaces that say nothing; undefined where the mesh says nothing either. */
  readonly outboundTrafficPolicy: OutboundTrafficPolicy | undefined;
}

/** Name and key in the control plane's namespace. */
export const MESH_CONFIG_MAP = 'istio';
const MESH_CONFIG_KEY = 'mesh';

const FILE: ExtensionProvider = { kind: 'envoyFileAccessLog', path: STDOUT, format: undefined, omitEmptyValues: false };
const BUILT_IN: readonly (readonly [string, ExtensionProvider])[] = [
  ['prometheus', PROMETHEUS],
  ['envoy', FILE],
];
// Istio's PILOT_TRACE_SAMPLING.
const SAMPLING_PERCENT = 1;
const MOST_PROVIDERS = 1000;

export const DEFAULT_MESH_CONFIG: MeshConfig = {
  extensionProviders: new Map(BUILT_IN),
  defaultProviders: { tracing: [], metrics: [], accessLogging: [] },
  accessLogFile: '',
  accessLogFormat: '',
  accessLogEncoding: 'TEXT',
  enableTracing: true,
  tracingSampling: SAMPLING_PERCENT,
  outboundTrafficPolicy: undefined,
};

/** What this control plane was started with; the mesh's configuration may repeat it, not change it. */
export interface StartedWith {
  readonly trustDomain: string;
  readonly rootNamespace: string;
}

/**
 * @param object the ConfigMap; undefined where there is none, which is the default
 * @returns undefined where it cannot be read at all: what it said before stays
 */
export function readMeshConfig(object: unknown, started: StartedWith, report: Report): MeshConfig | undefined {
  if (object === undefined) return DEFAULT_MESH_CONFIG;
  const written = at(object, 'data', MESH_CONFIG_KEY);
  if (typeof written !== 'string') {
    report(`has no key ${MESH_CONFIG_KEY}`);
    return DEFAULT_MESH_CONFIG;
  }
  let config: unknown;
  try {
    config = yaml.load(written, { schema: yaml.CORE_SCHEMA }) ?? {};
  } catch (error) {
    report(`${MESH_CONFIG_KEY}: ${errorMessage(error).split('\n')[0]}; what it said before stays`);
    return undefined;
  }
  if (!isRecord(config)) {
    report(`${MESH_CONFIG_KEY} is no object; what it said before stays`);
    return undefined;
  }
  const idle = Object.keys(config).filter((field) => !READ.has(field));
  if (idle.length > 0) report(`fields without effect here: ${quoteAll(idle)}`);
  checkStarted(config, started, report);
  return {
    extensionProviders: readProviders(config, report),
    defaultProviders: readDefaults(config, report),
    accessLogFile: text(config.accessLogFile),
    accessLogFormat: text(config.accessLogFormat),
    accessLogEncoding: oneOf(config.accessLogEncoding, 'accessLogEncoding', ['TEXT', 'JSON'], report) ?? 'TEXT',
    enableTracing: config.enableTracing !== false,
    tracingSampling: sampling(config, report),
    outboundTrafficPolicy: outboundPolicy(config, report),
  };
}

const READ = new Set(
  'extensionProviders defaultProviders accessLogFile accessLogFormat accessLogEncoding enableTracing defaultConfig outboundTrafficPolicy trustDomain rootNamespace'.split(
    ' ',
  ),
);

/** Those that could be used, and those that could not with the reason why: an object that names one says so in its status. */
function readProviders(config: Readonly<Record<string, unknown>>, report: Report): ReadonlyMap<string, ExtensionProvider> {
  const found = new Map<string, ExtensionProvider>(BUILT_IN);
  const own = new Set<string>();
  for (const [i, item] of records(config.extensionProviders).entries()) {
    const name = text(item.name);
    if (i >= MOST_PROVIDERS) {
      report(`extensionProviders: only the first ${MOST_PROVIDERS} are read`);
      break;
    }
    if (name === '') report(`extensionProviders[${i}] has no name`);
    else if (own.has(name)) report(`extensionProviders[${i}]: there is another one named ${name}, which counts`);
    else {
      const provider = readProvider(name, item, report);
      if (provider.kind === 'unusable') report(provider.problem);
      own.add(name);
      found.set(name, provider);
    }
  }
  return found;
}

function readDefaults(config: Readonly<Record<string, unknown>>, report: Report): MeshConfig['defaultProviders'] {
  const given = config.defaultProviders ?? {};
  for (const field of isRecord(given) ? Object.keys(given) : [])
    if (!['tracing', 'metrics', 'accessLogging'].includes(field)) report(`defaultProviders.${field} is not known and has no effect`);
  return {
    tracing: texts(at(given, 'tracing')),
    metrics: texts(at(given, 'metrics')),
    accessLogging: texts(at(given, 'accessLogging')),
  };
}

function sampling(config: Readonly<Record<string, unknown>>, report: Report): number {
  const given = at(config.defaultConfig, 'tracing', 'sampling');
  const rest = isRecord(config.defaultConfig) ? Object.keys(config.defaultConfig).filter((field) => field !== 'tracing') : [];
  const tracing = at(config.defaultConfig, 'tracing');
  const others = isRecord(tracing) ? Object.keys(tracing).filter((field) => field !== 'sampling') : [];
  const idle = [...rest, ...others.map((field) => `tracing.${field}`)];
  if (idle.length > 0) report(`defaultConfig: fields without effect here: ${quoteAll(idle)}`);
  if (given === undefined) return SAMPLING_PERCENT;
  if (typeof given === 'number' && given >= 0 && given <= 100) return given;
  report(`defaultConfig.tracing.sampling: ${quote(given)} is no percentage`);
  return SAMPLING_PERCENT;
}

function outboundPolicy(config: Readonly<Record<string, unknown>>, report: Report): OutboundTrafficPolicy | undefined {
  const mode = at(config.outboundTrafficPolicy, 'mode');
  if (mode === undefined) return undefined;
  if (mode === 'ALLOW_ANY' || mode === 'REGISTRY_ONLY') return mode;
  // Who restricts where pods may go, in a word that we do not know, must not find that they may go everywhere.
  report(`outboundTrafficPolicy.mode: there is no ${quote(mode)}; REGISTRY_ONLY holds`);
  return 'REGISTRY_ONLY';
}

function checkStarted(config: Readonly<Record<string, unknown>>, started: StartedWith, report: Report): void {
  for (const field of ['trustDomain', 'rootNamespace'] as const) {
    const wanted = config[field];
    if (wanted !== undefined && wanted !== '' && wanted !== started[field])
      report(`${field}: ${quote(wanted)} has no effect, istiod was started with ${started[field]}`);
  }
}

function oneOf<T extends string>(value: unknown, field: string, known: readonly T[], report: Report): T | undefined {
  const found = known.find((each) => each === value);
  if (value !== undefined && found === undefined) report(`${field}: ${quote(value)} is none of ${known.join(', ')}`);
  return found;
}

const MOST_NAMED = 20;

const quoteAll = (names: readonly string[]): string =>
  names.length > MOST_NAMED ? `${names.slice(0, MOST_NAMED).join(', ')} and ${names.length - MOST_NAMED} more` : names.join(', ');
