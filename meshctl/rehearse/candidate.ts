/** Objects of files, as `kubectl apply -f` reads them: several documents, lists, and the namespace of the command where they name none. */
import { readFileSync } from 'node:fs';
import yaml from 'js-yaml';
import type { KubeObject } from '../../common/client/kube-api.ts';
import { CommandError } from '../terminal.ts';

export interface Removal {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

/** Kinds without a namespace that a rehearsal can be about. */
const CLUSTER_WIDE: ReadonlySet<string> = new Set(['Namespace', 'Node', 'GatewayClass']);

/** @param file `-` for the standard input @throws {CommandError} naming the file, the document and what is wrong */
export function objectsOf(file: string, namespace: string): KubeObject[] {
  let text: string;
  try {
    text = readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (error) {
    throw new CommandError(`${file}: ${error instanceof Error ? error.message : error}`);
  }
  return parseObjects(text, file, namespace);
}

/** @throws {CommandError} */
export function parseObjects(text: string, file: string, namespace: string): KubeObject[] {
  let documents: unknown[];
  try {
    documents = yaml.loadAll(text);
  } catch (error) {
    // The parser draws a picture of the place below its sentence.
    throw new CommandError(`${file}: ${(error instanceof Error ? error.message : String(error)).split('\n')[0]}`);
  }
  return documents.flatMap((document, i) =>
    document === null || document === undefined ? [] : flat(document, `${file}, document ${i + 1}`, namespace),
  );
}

function flat(document: unknown, where: string, namespace: string): KubeObject[] {
  const object = document as { kind?: unknown; items?: unknown; metadata?: { name?: unknown; namespace?: unknown } };
  if (typeof object !== 'object' || object === null || typeof object.kind !== 'string') throw new CommandError(`${where}: it has no kind`);
  if (object.kind.endsWith('List') && Array.isArray(object.items))
    return object.items.flatMap((item, i) => flat(item, `${where}, item ${i + 1}`, namespace));
  if (typeof object.metadata?.name !== 'string') throw new CommandError(`${where}: ${object.kind} has no metadata.name`);
  const known = document as KubeObject;
  if (CLUSTER_WIDE.has(object.kind) || known.metadata.namespace) return [known];
  return [{ ...known, metadata: { ...known.metadata, namespace } }];
}

const KINDS: Readonly<Record<string, string>> = Object.fromEntries(
  [
    ['AuthorizationPolicy', 'ap', 'authorizationpolicies'],
    ['PeerAuthentication', 'pa', 'peerauthentications'],
    ['RequestAuthentication', 'ra', 'requestauthentications'],
    ['HTTPRoute', 'httproutes'],
    ['GRPCRoute', 'grpcroutes'],
    ['VirtualService', 'vs', 'virtualservices'],
    ['DestinationRule', 'dr', 'destinationrules'],
    ['ServiceEntry', 'se', 'serviceentries'],
    ['Gateway', 'gtw', 'gateways'],
  ].flatMap(([kind = '', ...others]) => [kind.toLowerCase(), ...others].map((name) => [name, kind])),
);

/** `KIND/NAME` or `KIND/NAMESPACE/NAME`. @throws {CommandError} */
export function removalOf(text: string, namespace: string): Removal {
  const [kind = '', first = '', second] = text.split('/');
  if (kind === '' || first === '') throw new CommandError(`--delete ${text}: expected KIND/NAME or KIND/NAMESPACE/NAME`);
  const known = KINDS[kind.toLowerCase()];
  if (known === undefined) throw new CommandError(`--delete ${text}: ${kind} is none of ${[...new Set(Object.values(KINDS))].join(', ')}`);
  return second === undefined ? { kind: known, namespace, name: first } : { kind: known, namespace: first, name: second };
}

const UNITS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `90s`, `15m`, `1h`, `2d`. @throws {CommandError} */
export function durationMs(text: string): number {
  const found = /^(\d{1,6})([smhd])$/.exec(text);
  if (!found) throw new CommandError(`--since ${text}: expected a duration such as 15m, 1h or 2d`);
  return Number(found[1]) * (UNITS[found[2] ?? 's'] ?? 1000);
}
