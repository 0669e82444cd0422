/**
 * What istiod-lite shows and what it asks proxies, by way of the API server: nobody needs to reach a pod. A token of the account `meshctl` opens
 * the pages; who may have one is for the cluster's own RBAC to say (Role `meshctl`, decision 12). It is good for these pages alone, and short.
 */
import { type KubeApi, KubeApiError, type KubeObject } from '../common/client/kube-api.ts';
import type { JournalAnswer } from '../common/decision/journal.ts';
import { CommandError } from './terminal.ts';

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

export class Istiod {
  readonly #authorized: KubeApi;
  /** Running replicas. */
  readonly pods: readonly KubeObject[];

  private constructor(api: KubeApi, token: string, pods: readonly KubeObject[]) {
    this.#authorized = api.withHeaders({ [TOKEN_HEADER]: token });
    this.pods = pods;
  }

  /**
   * @param pods all of the system namespace, where they are known already
   * @throws {KubeApiError | Error} where the API server does not give a token or the list of pods
   */
  static async open(api: KubeApi, systemNamespace: string, pods?: readonly KubeObject[]): Promise<Istiod> {
    const [token, all] = await Promise.all([
      tokenOf(api, systemNamespace),
      pods ?? api.list<KubeObject>(`/api/v1/namespaces/${systemNamespace}/pods`, { labelSelector: 'app=istiod' }),
    ]);
    return new Istiod(api, token, all.filter(isRunning));
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

  /** Asks the replicas in turn until one has that proxy. @throws {CommandError} where none has, or it does not answer */
  async ofProxy<T>(
    page: string,
    proxyId: string,
    method: 'GET' | 'POST' = 'GET',
    query: Readonly<Record<string, string | readonly string[]>> = {},
  ): Promise<T> {
    const search = new URLSearchParams([['proxyID', proxyId], ...pairsOf(query)]);
    for (const pod of this.pods) {
      const path = pageOf(pod, `${page}?${search}`);
      try {
        return await (method === 'GET' ? this.#authorized.get<T>(path) : this.#authorized.create<T>(path, {}));
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

const pairsOf = (query: Readonly<Record<string, string | readonly string[]>>): [string, string][] =>
  Object.entries(query).flatMap(([name, value]) => [value].flat().map((one): [string, string] => [name, one]));

const isRunning = ({ metadata, status }: KubeObject): boolean =>
  metadata.labels?.app === 'istiod' && (status as { phase?: string } | undefined)?.phase === 'Running';

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
