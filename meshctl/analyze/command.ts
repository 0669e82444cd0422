/** `meshctl analyze`: files, a cluster, or a cluster as it would be with the files, judged with the code that admission runs (istioctl analyze). */
import { readFileSync } from 'node:fs';
import yaml from 'js-yaml';
import { parseCidr } from '../../common/base/address.ts';
import { errorMessage } from '../../common/base/errors.ts';
import { analyze, TRANSLATION } from '../../istiod-lite/analysis/analyze.ts';
import { objectChecks, setChecks } from '../../istiod-lite/analysis/analyzers.ts';
import { atLeast, type Level, type Message } from '../../istiod-lite/analysis/messages.ts';
import { ObjectSet } from '../../istiod-lite/analysis/object-set.ts';
import type { MeshModelConfig } from '../../istiod-lite/model/config.ts';
import { at, text, textMap } from '../../istiod-lite/model/objects.ts';
import { namespaceOf } from '../namespace.ts';
import { CommandError, type Connection, clusterError, connect } from '../terminal.ts';
import { readDocuments } from './documents.ts';
import { gatherFiles } from './files.ts';
import { liveObjects } from './live.ts';
import { FORMATS, type Format, printMessages } from './print.ts';
import { isKnownCode, isSuppressed, readSuppression } from './suppress.ts';

export interface AnalyzeFlags {
  readonly listAnalyzers: boolean;
  readonly useKube: boolean;
  readonly color: boolean;
  readonly verbose: boolean;
  readonly failureThreshold: string;
  readonly outputThreshold: string;
  readonly output: string;
  readonly meshConfigFile?: string;
  readonly namespace?: string;
  readonly allNamespaces: boolean;
  readonly suppress: readonly string[];
  readonly timeout: string;
  readonly recursive: boolean;
  readonly ignoreUnknown: boolean;
  readonly revision: string;
  readonly analyzer: readonly string[];
}

/** What the command reads and writes beside files and the cluster. */
export interface Terminal {
  readonly isTerminal: boolean;
  stdin(): string;
  out(text: string): void;
  err(text: string): void;
}

/** istioctl's, of BSD's sysexits.h. */
export const EXIT = { issues: 79, usage: 64, badInput: 65, other: 1 } as const;

const LEVELS: readonly Level[] = ['Info', 'Warning', 'Error'];

/** @returns the exit status */
export async function analyzeCommand(
  files: readonly string[],
  flags: AnalyzeFlags,
  connection: Connection,
  terminal: Terminal,
): Promise<number> {
  try {
    const options = readFlags(flags);
    if (flags.listAnalyzers) {
      terminal.out(listAnalyzers());
      return 0;
    }
    if (flags.recursive) terminal.err('-R changes nothing: folders are read with all that is below them');
    for (const { code } of options.suppressions)
      if (!isKnownCode(code)) terminal.err(`warning: the message code ${code} of --suppress is not known, and has no effect`);
    return await run(files, flags, options, connection, terminal);
  } catch (error) {
    if (error instanceof UsageError) {
      terminal.err(`meshctl: ${error.message}`);
      return EXIT.usage;
    }
    if (error instanceof CommandError) {
      terminal.err(`meshctl: ${error.message}`);
      return EXIT.other;
    }
    throw error;
  }
}

class UsageError extends CommandError {}

interface Options {
  readonly format: Format;
  readonly failure: Level;
  readonly shown: Level;
  readonly timeoutMs: number;
  readonly suppressions: readonly ReturnType<typeof readSuppression>[];
  readonly only: readonly string[] | undefined;
}

function readFlags(flags: AnalyzeFlags): Options {
  const format = FORMATS.find((each) => each === flags.output.toLowerCase());
  if (!format) throw new UsageError(`-o ${flags.output}: expected one of ${FORMATS.join(', ')}`);
  const seconds = /^(\d+)(s|m)?$/.exec(flags.timeout);
  if (!seconds) throw new UsageError(`--timeout ${flags.timeout}: expected a duration such as 30s`);
  const known = new Set([TRANSLATION, ...objectChecks.map(({ name }) => name), ...setChecks.map(({ name }) => name)]);
  const unknown = flags.analyzer.find((name) => !known.has(name));
  if (unknown !== undefined) throw new UsageError(`--analyzer ${unknown}: there is none of that name (meshctl analyze -L lists them)`);
  return {
    format,
    failure: levelOf('--failure-threshold', flags.failureThreshold),
    shown: levelOf('--output-threshold', flags.outputThreshold),
    timeoutMs: Number(seconds[1]) * (seconds[2] === 'm' ? 60_000 : 1000),
    suppressions: flags.suppress.map(readSuppressionFlag),
    only: flags.analyzer.length > 0 ? flags.analyzer : undefined,
  };
}

function readSuppressionFlag(written: string): ReturnType<typeof readSuppression> {
  try {
    return readSuppression(written);
  } catch (error) {
    throw new UsageError(errorMessage(error));
  }
}

function levelOf(flag: string, written: string): Level {
  const level = LEVELS.find((each) => each.toLowerCase() === written.toLowerCase());
  if (!level) throw new UsageError(`${flag} ${written}: expected one of ${LEVELS.join(', ')}`);
  return level;
}

async function run(
  files: readonly string[],
  flags: AnalyzeFlags,
  options: Options,
  connection: Connection,
  terminal: Terminal,
): Promise<number> {
  const texts = gatherFiles(files, terminal.stdin, (path) => terminal.err(`skipping ${path}: files end in .json, .yaml or .yml`));
  if (!flags.useKube && files.length === 0) throw new UsageError('without a cluster (--use-kube=false) there must be files to analyze');
  const set = new ObjectSet();
  const defaultNamespace = flags.useKube ? await namespaceOf(connection, flags.namespace) : (flags.namespace ?? 'default');
  const namespace = flags.allNamespaces ? undefined : flags.useKube ? defaultNamespace : flags.namespace;
  if (flags.useKube) await addLive(set, connection, options.timeoutMs, flags);
  const problems: string[] = [];
  for (const { name, content } of texts) {
    const read = readDocuments(name, content);
    problems.push(...read.problems);
    for (const { value, line } of read.documents)
      if (isOfRevision(value, flags.revision)) set.add(value, { reference: `${name}:${line}`, defaultNamespace });
  }
  if (!flags.ignoreUnknown) for (const problem of problems) terminal.err(`meshctl: ${problem}`);
  const config = readMeshConfig(flags.meshConfigFile, connection.systemNamespace);
  const found = analyze(set, { config, ...(options.only && { only: options.only }) }).filter(
    (message) => isWanted(message, namespace, flags) && !isSuppressed(message, options.suppressions),
  );
  if (flags.verbose) terminal.err(`analyzed ${set.size} objects in ${placeOf(namespace)}`);
  const shown = found.filter(({ type }) => atLeast(type.level, options.shown));
  if (shown.length > 0 || options.format !== 'log') terminal.out(printMessages(shown, options.format, flags.color && terminal.isTerminal));
  else terminal.err(`${problems.length === 0 ? '✔ ' : ''}No validation issues found when analyzing ${subject(texts, namespace)}.`);
  // As istioctl: whoever reads JSON judges by what it says.
  if (options.format !== 'log') return 0;
  if (found.some(({ type }) => atLeast(type.level, options.failure))) {
    terminal.err(
      `meshctl: analyzers found issues when analyzing ${subject(texts, namespace)}: see docs/analyze.md for what to do about them`,
    );
    return EXIT.issues;
  }
  return problems.length > 0 && !flags.ignoreUnknown ? EXIT.badInput : 0;
}

/** Of a cluster only what is asked for; what is in a file is always asked for, unless a namespace is named. */
function isWanted({ origin }: Message, namespace: string | undefined, { namespace: named }: AnalyzeFlags): boolean {
  if (namespace === undefined || origin.namespace === '' || origin.namespace === namespace) return true;
  return named === undefined && origin.reference !== undefined;
}

async function addLive(set: ObjectSet, connection: Connection, timeoutMs: number, { revision }: AnalyzeFlags): Promise<void> {
  const api = connect(connection);
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => reject(new CommandError(`the cluster has not answered within ${timeoutMs / 1000} s (--timeout)`)),
    timeoutMs,
  );
  try {
    const objects = await Promise.race([liveObjects(api), late]);
    for (const object of objects) if (isOfRevision(object, revision)) set.add(object, { defaultNamespace: 'default' });
  } catch (error) {
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    clearTimeout(timer);
    api.close();
  }
}

/** Objects of the mesh can be another control plane's; those of Kubernetes itself are everybody's. */
function isOfRevision(object: unknown, revision: string): boolean {
  const group = text(at(object, 'apiVersion')).split('/')[0] ?? '';
  const own = textMap(at(object, 'metadata', 'labels'))['istio.io/rev'];
  return own === undefined || own === revision || !/(?:\.istio\.io|^gateway\.networking\.k8s\.io|^warren\.dev)$/.test(group);
}

/** What istiod is told by its settings, with their defaults; a file of Istio's MeshConfig may say otherwise. */
function readMeshConfig(file: string | undefined, systemNamespace: string): MeshModelConfig {
  let mesh: unknown;
  try {
    mesh = file === undefined ? undefined : yaml.load(readFileSync(file, 'utf8'), { schema: yaml.CORE_SCHEMA });
  } catch (error) {
    throw new CommandError(`--meshConfigFile ${file}: ${errorMessage(error).split('\n')[0]}`);
  }
  const [v4, v6] = [parseCidr('240.240.0.0/16'), parseCidr('2001:2::/48')];
  return {
    clusterId: 'Kubernetes',
    domain: 'cluster.local',
    rootNamespace: text(at(mesh, 'rootNamespace')) || systemNamespace,
    trustDomain: text(at(mesh, 'trustDomain')) || 'cluster.local',
    network: '',
    revision: 'default',
    guardClaims: true,
    ...(v4 && v6 && { autoAddresses: { v4, v6 } }),
  };
}

const placeOf = (namespace: string | undefined): string => (namespace === undefined ? 'all namespaces' : `namespace: ${namespace}`);

function subject(texts: readonly { readonly name: string }[], namespace: string | undefined): string {
  if (texts.length === 0) return placeOf(namespace);
  const names = texts.slice(0, 5).map(({ name }) => name);
  return texts.length > names.length ? `${names.join(', ')} and ${texts.length - names.length} more` : names.join(', ');
}

export function listAnalyzers(): string {
  const rows = [
    { name: TRANSLATION, doc: 'each object as istiod reads it: what makes no sense, what is not there, what nobody enforces' },
    ...objectChecks,
    ...setChecks,
  ];
  return [...rows]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, doc }) => `* ${name}:\n    ${doc}`)
    .join('\n');
}
