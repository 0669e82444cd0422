/**
 * What istiod-lite shows and what it asks proxies, by way of the API server: nobody needs to reach a pod. A token of the account `meshctl` opens
 * the pages; who may have one is for the cluster's own RBAC to say (Role `meshctl`, decision 12). It is good for these pages alone, and short.
 */
import { type KubeApi, KubeApiError, type KubeObject } from '../common/client/kube-api.ts';
import type { JournalAnswer } from '../common/decision/journal.ts';
import { CommandError } from './command-error.ts';

const MONITORING_PORT = 15014;
const ACCOUNT = 'meshctl';
/** istiod-lite/server/debug-pages.ts has both. */
const AUDIENCE = 'warren.dev/debug';
const TOKEN_HEADER = 'x-warren-token';
/** The shortest that Kubernetes gives. */
const TOKEN_SECONDS = 600;

/** What one proxy decided lately, as istiod passes it on. */
export interface ProxyJournal extends JournalAnswer {
  /** `POD.NAMESPACE`. */
  readonly proxy: string;
  readonly kind: string;
  readonly node: string;
  /** Of a waypoint: `namespace/name` of its Gateway. */
  readonly gateway: string;
  /** Why there is nothing of it. */
  readonly error?: string;
}

export type ProxyQuery = Readonly<Record<string, string | readonly string[]>>;

/** A proxy, and the istiod that it reports to. */
export interface ReportingProxy {
  readonly name: string;
  readonly namespace: string;
  readonly node: string;
  readonly kind: 'ztunnel' | 'waypoint';
  readonly pod: KubeObject;
}

/** `POD.NAMESPACE`, as istiod knows it. */
export const idOf = ({ name, namespace }: Pick<ReportingProxy, 'name' | 'namespace'>): string => `${name}.${namespace}`;

export class Istiod {
  readonly #authorized: KubeApi;
  /** Running replicas. */
  readonly pods: readonly KubeObject[];

  private constructor(api: KubeApi, token: string, pods: readonly KubeObject[]) {
    this.#authorized = api.withHeaders({ [TOKEN_HEADER]: token });
    this.pods = pods;
  }

  /**
   * @param pods all of the system namespace, where they are known or asked for already
   * @throws {KubeApiError | Error} where the API server does not give a token or the list of pods
   */
  static async open(api: KubeApi, systemNamespace: string, pods?: readonly KubeObject[] | Promise<readonly KubeObject[]>): Promise<Istiod> {
    const [token, all] = await Promise.all([
      tokenOf(api, systemNamespace),
      pods ?? api.list<KubeObject>(`/api/v1/namespaces/${systemNamespace}/pods`, { labelSelector: 'app=istiod' }),
    ]);
    // One that shuts down still has proxies, and settings that may no longer hold: it comes last.
    const running = all.filter(isRunning).sort((a, b) => Number(isLeaving(a)) - Number(isLeaving(b)));
    return new Istiod(api, token, running);
  }

  close(): void {
    this.#authorized.close();
  }

  /** A page of one replica. @throws {KubeApiError} with the page's own words */
  get<T>(pod: KubeObject, page: string): Promise<T> {
    return this.#authorized.get<T>(pageOf(pod, page));
  }

  /**
   * The proxies' decision journals, of all replicas: since a time, or of one connection or request.
   * @throws {KubeApiError | CommandError}
   */
  async journals(wanted: { readonly sinceMs: number } | { readonly id: string }): Promise<{ journals: ProxyJournal[] }> {
    const query = new URLSearchParams(Object.entries(wanted).map(([name, value]) => [name, String(value)]));
    if (this.pods.length === 0) throw new CommandError('istiod is not running: look with meshctl status');
    const pages = await Promise.all(this.pods.map((pod) => this.get<{ journals: ProxyJournal[] }>(pod, `/debug/journal?${query}`)));
    return { journals: pages.flatMap(({ journals }) => journals) };
  }

  /** POSTs to a page of each replica. @throws {KubeApiError | CommandError} */
  async postAll<T>(page: string, body: unknown): Promise<T[]> {
    if (this.pods.length === 0) throw new CommandError('istiod is not running: look with meshctl status');
    return Promise.all(this.pods.map((pod) => this.#authorized.create<T>(pageOf(pod, page), body)));
  }

  /** Every proxy that reports to some replica, and to which. */
  async proxies(): Promise<ReportingProxy[]> {
    const pages = await Promise.all(
      this.pods.map(async (pod) =>
        (await this.get<Omit<ReportingProxy, 'pod'>[]>(pod, '/debug/proxies')).map((proxy) => ({ ...proxy, pod })),
      ),
    );
    if (this.pods.length === 0) throw new CommandError('istiod is not running: look with meshctl status');
    return pages.flat().sort((a, b) => (idOf(a) < idOf(b) ? -1 : 1));
  }

  /** Asks one proxy where it reports. @throws {KubeApiError} in the proxy's words */
  at<T>(proxy: ReportingProxy, page: string, query: ProxyQuery = {}): Promise<T> {
    return this.get<T>(proxy.pod, `${page}?${searchOf(idOf(proxy), query)}`);
  }

  /** An answer of one proxy that goes on, line by line. @throws {KubeApiError}; the signal's reason */
  linesAt(proxy: ReportingProxy, page: string, query: ProxyQuery, signal: AbortSignal): AsyncGenerator<string> {
    return this.#authorized.lines(pageOf(proxy.pod, `${page}?${searchOf(idOf(proxy), query)}`), {}, signal);
  }

  /** POSTs to a page of the replicas in turn, until one has the proxies that it is about. @throws {KubeApiError | CommandError} */
  async postOne<T>(page: string, body: unknown): Promise<T> {
    let absent: unknown = new CommandError('istiod is not running: look with meshctl status');
    for (const pod of this.pods) {
      try {
        return await this.#authorized.create<T>(pageOf(pod, page), body);
      } catch (error) {
        if (!(error instanceof KubeApiError && error.status === 404)) throw error;
        absent = error;
      }
    }
    throw absent;
  }

  /** Asks the replicas in turn until one has that proxy. @throws {CommandError} where none has, or it does not answer */
  async ofProxy<T>(page: string, proxyId: string, method: 'GET' | 'POST' = 'GET', query: ProxyQuery = {}, body: unknown = {}): Promise<T> {
    const search = searchOf(proxyId, query);
    for (const pod of this.pods) {
      const path = pageOf(pod, `${page}?${search}`);
      try {
        return await (method === 'GET' ? this.#authorized.get<T>(path) : this.#authorized.create<T>(path, body));
      } catch (error) {
        if (!(error instanceof KubeApiError)) throw error;
        // The error begins with the request; the proxy's own words come after the status.
        if (error.status !== 404) throw new CommandError(`${proxyId}: ${error.message.replace(/^.*?: \d{3} /s, '').trim()}`);
      }
    }
    if (this.pods.length === 0) throw new CommandError('istiod is not running: look with meshctl status');
    throw new CommandError(`${proxyId} reports to no istiod: is it running, and does it report (meshctl status)?`);
  }
}

const searchOf = (proxyId: string, query: ProxyQuery): URLSearchParams =>
  new URLSearchParams([
    ['proxyID', proxyId],
    ...Object.entries(query).flatMap(([name, value]) => [value].flat().map((one): [string, string] => [name, one])),
  ]);

const isRunning = ({ metadata, status }: KubeObject): boolean =>
  metadata.labels?.app === 'istiod' && (status as { phase?: string } | undefined)?.phase === 'Running';

const isLeaving = ({ metadata }: KubeObject): boolean => metadata.deletionTimestamp !== undefined;

const pageOf = ({ metadata }: KubeObject, page: string): string =>
  `/api/v1/namespaces/${metadata.namespace}/pods/${metadata.name}:${MONITORING_PORT}/proxy${page}`;

async function tokenOf(api: KubeApi, systemNamespace: string): Promise<string> {
  try {
    const { status } = await api.create<{ status?: { token?: string } }>(
      `/api/v1/namespaces/${systemNamespace}/serviceaccounts/${ACCOUNT}/token`,
      {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenRequest',
        spec: { audiences: [AUDIENCE], expirationSeconds: TOKEN_SECONDS },
      },
    );
    return status?.token ?? '';
  } catch (error) {
    if (error instanceof KubeApiError && error.status === 403)
      throw new CommandError(`you may not ask istiod: have the Role ${ACCOUNT} of namespace ${systemNamespace} bound to you`);
    if (error instanceof KubeApiError && error.status === 404)
      throw new CommandError(`there is no service account ${systemNamespace}/${ACCOUNT}: is the mesh installed there (meshctl install)?`);
    throw error;
  }
}
