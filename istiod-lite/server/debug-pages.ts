/**
 * What istiod-lite shows of itself, under Istio's page names where it has one. Every pod can reach this port, and not every pod's business is
 * where everything runs: who sees a page as a whole, who sees the rows of its own namespace, and who sees nothing, is access/access.ts' to say.
 */
import type { Readable } from 'node:stream';
import { Authorization } from '../../common/codec/gen/authorization.ts';
import type { RequestQuestion } from '../../common/codec/gen/diagnostics.ts';
import { Address } from '../../common/codec/gen/workload.ts';
import type { Gate } from '../access/access.ts';
import { fromToken } from '../access/authenticate.ts';
import type { Caller, TokenReviewer } from '../access/token-review.ts';
import { eachJournal, journalSeenFrom, type ProxyJournal } from '../diagnostics/journals.ts';
import type { ProxyReports, Question } from '../diagnostics/reports.ts';
import type { MeshIndex } from '../model/index.ts';
import { isRecord, text, texts } from '../model/objects.ts';
import { BadCandidate, type Candidate, readCandidate } from '../rehearsal/candidate.ts';
import type { Rehearsal } from '../rehearsal/rehearse.ts';
import type { Proxies } from '../xds/proxies.ts';
import { ambientDump, configDump } from './ambient-dump.ts';
import type { CoveragePage } from './coverage-page.ts';

export interface DebugSources {
  readonly proxies: Proxies;
  readonly reports: ProxyReports;
  readonly index: Pick<MeshIndex, 'problems' | 'addresses' | 'authorizations'>;
  /** State of the certificate authority. */
  ca(): unknown;
  /** Settings that are no secret. */
  mesh(): unknown;
  /** Tries objects against what was decided lately. @throws {AskError | BadCandidate} */
  rehearse(candidate: Candidate, sight: Sight): Promise<Rehearsal>;
  /** Where each rule of a namespace's objects, or of all, is enforced. */
  coverage(namespace: string | undefined): Promise<CoveragePage>;
}

/** Sees everything, or the rows of one namespace. */
export type Sight = 'everything' | { readonly namespace: string };

/** What came with a POST is not what the page takes; the message says what. */
export class BadBody extends Error {}

interface Page {
  readonly doc: string;
  /** Whether there is something on it for those who see one namespace only. */
  readonly byNamespace: boolean;
  /** Whether it may change something, or takes a body: only asked with POST. */
  readonly changes?: boolean;
  /** Whether what is asked may come with a POST too, as it is long, or nobody's business. */
  readonly takesBody?: boolean;
  /** The row of the access table that those have who see one namespace. */
  readonly own?: 'debug/own' | 'debug/journal' | 'debug/rehearse';
  /** A Buffer is JSON already, a Readable lines of it. @throws {AskError} where a proxy does not answer @param body of a POST, decoded */
  show(sources: DebugSources, sight: Sight, query: URLSearchParams, body: unknown): unknown;
}

/** By path. `undefined` as the answer means that there is no such thing. */
export const debugPages: Readonly<Record<string, Page>> = {
  '/debug/syncz': {
    doc: 'what each proxy was sent and acknowledged',
    byNamespace: true,
    show: ({ proxies }, sight) => proxies.rows().filter(({ namespace }) => sees(sight, namespace)),
  },
  '/debug/connections': {
    doc: 'which proxies are connected',
    byNamespace: true,
    show({ proxies }, sight) {
      const clients = proxies.rows().filter(({ namespace }) => sees(sight, namespace));
      return {
        totalClients: clients.length,
        clients: clients.map(({ proxy, address, connectedSince }) => ({ connectionId: proxy, connectedAt: connectedSince, address })),
      };
    },
  },
  '/debug/config_dump': {
    doc: 'what one proxy (?proxyID=POD.NAMESPACE) is served',
    byNamespace: true,
    show({ proxies }, sight, query) {
      const id = query.get('proxyID') ?? '';
      const stores = sees(sight, id.slice(id.lastIndexOf('.') + 1)) ? proxies.stores(id) : undefined;
      return stores && { proxy: id, configs: [...stores.values()].map((store) => configDump(store)) };
    },
  },
  '/debug/proxies': {
    doc: 'what each proxy last reported of itself, and its latest refusals',
    byNamespace: true,
    show: ({ reports }, sight) => reports.rows().filter(({ namespace }) => sees(sight, namespace)),
  },
  '/debug/proxy': {
    doc: 'what one proxy (?proxyID=POD.NAMESPACE) knows, serves and carries, in its own words',
    byNamespace: true,
    show: ({ reports }, sight, query) => askProxy(reports, sight, query, { $case: 'configDump', value: {} }),
  },
  '/debug/proxy/log': {
    doc: 'POST: sets the log levels of one proxy (?proxyID=POD.NAMESPACE&level=LEVEL or &reset=true)',
    byNamespace: true,
    changes: true,
    show: ({ reports }, sight, query) =>
      askProxy(reports, sight, query, {
        $case: 'log',
        value: { level: (query.get('level') ?? '').slice(0, 200), reset: query.get('reset') === 'true' },
      }),
  },
  '/debug/proxy/outbound': {
    doc: 'how a connection leaves a pod (?proxyID=ZTUNNEL.NAMESPACE&namespace=&pod=&host=&port=)',
    byNamespace: true,
    show: ({ reports }, sight, query) =>
      askProxy(reports, sight, query, {
        $case: 'outbound',
        value: { ...textsOf(query, ['namespace', 'pod', 'host']), port: Number(query.get('port')) || 0 },
      }),
  },
  '/debug/proxy/inbound': {
    doc: 'what becomes of a connection at its pod (?proxyID=ZTUNNEL.NAMESPACE&namespace=&pod=&destination=&authority=&source=&identity=)',
    byNamespace: true,
    show: ({ reports }, sight, query) =>
      askProxy(reports, sight, query, {
        $case: 'inbound',
        value: textsOf(query, ['namespace', 'pod', 'destination', 'authority', 'source', 'identity']),
      }),
  },
  '/debug/proxy/request': {
    doc: 'what a waypoint would do with a request (?proxyID=WAYPOINT.NAMESPACE&authority=&source=&identity=&method=&path=&host=&header=NAME:VALUE; or POST {authority, source, identity, method, path, host, headers: [NAME:VALUE]})',
    byNamespace: true,
    takesBody: true,
    show: ({ reports }, sight, query, body) => askProxy(reports, sight, query, { $case: 'request', value: requestOf(query, body) }),
  },
  '/debug/proxy/tap': {
    doc: 'connections and requests as a proxy sees them (?proxyID=POD.NAMESPACE&subject=&from=&to=&port=&method=&path=&status=&outcome=&maxRate=&seconds=), one line of JSON each',
    byNamespace: true,
    show: ({ reports }, sight, query) =>
      followProxy(reports, sight, query, {
        $case: 'tap',
        value: {
          ...textsOf(query, ['subject', 'from', 'to', 'method', 'path', 'status', 'outcome']),
          port: numberOf(query, 'port'),
          maxRate: numberOf(query, 'maxRate'),
          seconds: numberOf(query, 'seconds'),
        },
      }),
  },
  '/debug/proxy/counters': {
    doc: 'counters of one proxy (?proxyID=POD.NAMESPACE&family=NAME&label=NAME, both several times), added up over all other labels',
    byNamespace: true,
    show: ({ reports }, sight, query) =>
      askProxy(reports, sight, query, {
        $case: 'counters',
        value: { families: namesOf(query, 'family'), labels: namesOf(query, 'label') },
      }),
  },
  '/debug/journal': {
    doc: 'what proxies decided lately (?sinceMs=MILLISECONDS since 1970), or what became of one connection or request (?id=)',
    byNamespace: true,
    own: 'debug/journal',
    async show({ reports }, sight, query) {
      const journals: ProxyJournal[] = [];
      const wanted = { sinceMs: Number(query.get('sinceMs')) || 0, id: (query.get('id') ?? '').slice(0, MAX_TEXT) };
      await eachJournal(reports, wanted, (journal) => {
        const seen = sight === 'everything' ? journal : journalSeenFrom(sight.namespace, journal);
        journals.push(seen);
      });
      return { journals };
    },
  },
  '/debug/rehearse': {
    doc: 'POST {apply: [OBJECT], remove: [{kind, namespace, name}], sinceMs}: which recorded decisions would change',
    byNamespace: true,
    changes: true,
    own: 'debug/rehearse',
    async show({ rehearse }, sight, _query, body) {
      try {
        return await rehearse(readCandidate(body, sight === 'everything' ? undefined : sight.namespace), sight);
      } catch (error) {
        throw error instanceof BadCandidate ? new BadBody(error.message) : error;
      }
    },
  },
  '/debug/problems': {
    doc: 'what is wrong with objects of the cluster',
    byNamespace: true,
    // `Kind namespace/name`, with words before it in some.
    show: ({ index }, sight) => [...index.problems()].filter(({ object }) => sees(sight, /(\S+)\/\S+$/.exec(object)?.[1] ?? '')),
  },
  '/debug/coverage': {
    doc: 'where each rule of policies, routes and settings is enforced (?namespace=NAME for those of one namespace)',
    byNamespace: true,
    show({ coverage }, sight, query) {
      const wanted = (query.get('namespace') ?? '').slice(0, MAX_TEXT) || undefined;
      if (sight === 'everything') return coverage(wanted);
      return wanted === undefined || sees(sight, wanted) ? coverage(sight.namespace) : undefined;
    },
  },
  '/debug/ambientz': {
    doc: 'all workloads, services and policies that are served',
    byNamespace: false,
    show: (sources) => ambient(sources),
  },
  '/debug/registryz': { doc: 'all services', byNamespace: false, show: (sources) => ambient(sources).services },
  '/debug/instancesz': { doc: 'all workloads', byNamespace: false, show: (sources) => ambient(sources).workloads },
  '/debug/authorizationz': { doc: 'all L4 policies', byNamespace: false, show: (sources) => ambient(sources).policies },
  '/debug/ca': { doc: 'the roots, how long they live, and where a rotation stands', byNamespace: false, show: ({ ca }) => ca() },
  '/debug/mesh': { doc: 'settings', byNamespace: false, show: ({ mesh }) => mesh() },
};

/** The API server takes `authorization` off what it forwards to a pod, so a token may come in this header as well. */
export const TOKEN_HEADER = 'x-warren-token';
/** Tokens for this audience open debug pages, and nothing else. */
export const DEBUG_AUDIENCE = 'warren.dev/debug';

export interface Visitor {
  readonly remoteAddress: string;
  /** '' where there is none. */
  readonly token: string;
}

/** @returns a reason where nothing may be seen, in the words of the answer */
export async function sightOf(
  { remoteAddress, token }: Visitor,
  page: Page,
  { access, reviewer }: { access: Gate; reviewer: Pick<TokenReviewer, 'review'> },
): Promise<Sight | { readonly status: 401 | 403 | 503; readonly reason: string }> {
  if (isLoopback(remoteAddress)) return 'everything';
  if (token === '') return { status: 401, reason: `ask from inside istiod's pod, or with a token in the header ${TOKEN_HEADER}` };
  const authentication = await fromToken(token, reviewer);
  if ('refuse' in authentication)
    return { status: authentication.refuse === 'UNAUTHENTICATED' ? 401 : 503, reason: authentication.message };
  return sightOfCaller(authentication.caller, page, access);
}

function sightOfCaller(
  caller: Caller,
  { byNamespace, own = 'debug/own' }: Page,
  access: Gate,
): Sight | { readonly status: 403; readonly reason: string } {
  const { namespace } = caller;
  const reason = access.mayNot('debug/all', caller);
  if (reason === undefined) return 'everything';
  if (byNamespace && access.mayNot(own, caller, { namespace }) === undefined) return { namespace };
  return { status: 403, reason };
}

const MAX_TEXT = 512;

const textsOf = <K extends string>(query: URLSearchParams, names: readonly K[]): Record<K, string> =>
  Object.fromEntries(names.map((name) => [name, (query.get(name) ?? '').slice(0, MAX_TEXT)])) as Record<K, string>;

const MAX_NAMES = 50;

const namesOf = (query: URLSearchParams, name: string): string[] =>
  query
    .getAll(name)
    .slice(0, MAX_NAMES)
    .map((text) => text.slice(0, MAX_TEXT));

/** 0 where it is none. */
function numberOf(query: URLSearchParams, name: string): number {
  const value = Number(query.get(name));
  return Number.isInteger(value) && value > 0 && value <= 1_000_000 ? value : 0;
}

const MAX_HEADERS = 50;

/** A token's room, and that of a long path. */
const MAX_LONG_TEXT = 16 << 10;

const headersOf = (texts: readonly string[]): { name: string; value: string }[] =>
  texts.slice(0, MAX_HEADERS).map((text) => ({
    name: text.slice(0, Math.max(text.indexOf(':'), 0)),
    value: text
      .slice(text.indexOf(':') + 1)
      .trim()
      .slice(0, MAX_LONG_TEXT),
  }));

const REQUEST = ['authority', 'source', 'identity', 'method', 'path', 'host'] as const;

function requestOf(query: URLSearchParams, body: unknown): RequestQuestion {
  if (!isRecord(body)) return { ...textsOf(query, REQUEST), headers: headersOf(query.getAll('header')) };
  const told = Object.fromEntries(REQUEST.map((name) => [name, text(body[name]).slice(0, MAX_LONG_TEXT)]));
  return { ...(told as Record<(typeof REQUEST)[number], string>), headers: headersOf(texts(body.headers)) };
}

/** A ztunnel knows the whole mesh, and lives in the system namespace: only who sees everything sees it. A waypoint knows its namespace's routes. */
async function askProxy(reports: ProxyReports, sight: Sight, query: URLSearchParams, question: Question): Promise<Buffer | undefined> {
  const id = query.get('proxyID') ?? '';
  return sees(sight, id.slice(id.lastIndexOf('.') + 1)) ? reports.ask(id, question) : undefined;
}

async function followProxy(reports: ProxyReports, sight: Sight, query: URLSearchParams, question: Question): Promise<Readable | undefined> {
  const id = query.get('proxyID') ?? '';
  return sees(sight, id.slice(id.lastIndexOf('.') + 1)) ? reports.follow(id, question) : undefined;
}

const sees = (sight: Sight, namespace: string): boolean => sight === 'everything' || sight.namespace === namespace;

const isLoopback = (address: string): boolean => address.startsWith('127.') || address === '::1';

const ambient = ({ index }: DebugSources) =>
  ambientDump(decoded(index.addresses(), Address), decoded(index.authorizations(), Authorization));

function* decoded<T>(resources: Iterable<{ readonly bytes: Uint8Array }>, codec: { decode(bytes: Uint8Array): T }): Generator<T> {
  for (const { bytes } of resources) yield codec.decode(bytes);
}
