/** Reads what preflight.ts judges. Nothing is changed; what may not be read becomes a sentence, except what nothing can be said without. */
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { find } from '../install/apply.ts';
import { DEFINITIONS_PATH, installKinds } from '../install/kinds.ts';
import { oneLine } from './finding.ts';
import type { Denied, PreflightFacts } from './preflight.ts';

type ReadApi = Pick<KubeApi, 'get' | 'list' | 'create'>;

export interface ObserveOptions {
  readonly namespace: string;
  readonly objects: readonly KubeObject[];
  /** What is to be done with them. */
  readonly verbs: readonly string[];
}

/** @throws what the API server's absence throws: without its version nothing can be said */
export async function observe(api: ReadApi, { namespace, objects, verbs }: ObserveOptions): Promise<PreflightFacts> {
  const unread: string[] = [];
  const server = await api.get<{ major: string; minor: string; gitVersion: string }>('/version');
  const lists = (path: string): Promise<KubeObject[]> => readable(api, path, unread);
  const [denied, namespaceObject, definitions, deployments, daemonSets, webhooks, nodes, pods, networkPolicies] = await Promise.all([
    deniedOf(api, namespace, objects, verbs),
    find<KubeObject>(api, `/api/v1/namespaces/${namespace}`).catch(() => undefined),
    lists(DEFINITIONS_PATH),
    lists('/apis/apps/v1/deployments'),
    lists('/apis/apps/v1/daemonsets'),
    lists('/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'),
    lists('/api/v1/nodes'),
    lists('/api/v1/pods'),
    lists('/apis/networking.k8s.io/v1/networkpolicies'),
  ]);
  return {
    namespace,
    server,
    denied,
    namespaceObject,
    definitions: definitions.filter(({ metadata }) => /\.(istio\.io|gateway\.networking\.k8s\.io)$/.test(metadata.name ?? '')),
    meshes: [
      ...deployments.map((object) => ({ ...object, kind: 'Deployment' })),
      ...daemonSets.map((object) => ({ ...object, kind: 'DaemonSet' })),
    ],
    webhooks,
    nodes,
    daemonSets: daemonSets.filter(({ metadata }) => metadata.namespace !== namespace).map((object) => ({ ...object, kind: 'DaemonSet' })),
    pods,
    networkPolicies,
    unread,
    objects,
  };
}

async function readable(api: ReadApi, path: string, unread: string[]): Promise<KubeObject[]> {
  try {
    return await api.list<KubeObject>(path);
  } catch (error) {
    if (!(error instanceof KubeApiError) || error.status >= 500) throw error;
    if (error.status !== 404) unread.push(`${path.slice(path.lastIndexOf('/') + 1)} may not be read: ${oneLine(error.message)}`);
    return [];
  }
}

/** Every right that the work needs and this user does not have. */
async function deniedOf(api: ReadApi, namespace: string, objects: readonly KubeObject[], verbs: readonly string[]): Promise<Denied[]> {
  if (await allowed(api, { verb: '*', group: '*', resource: '*', namespace: '' })) return [];
  const kinds = installKinds.filter(({ kind, apiVersion }) =>
    objects.some((object) => object.kind === kind && object.apiVersion === apiVersion),
  );
  const wanted = [
    ...kinds.map(({ apiVersion, plural, namespaced }) => ({
      group: apiVersion.includes('/') ? (apiVersion.split('/')[0] ?? '') : '',
      resource: plural,
      namespace: namespaced ? namespace : '',
    })),
    { group: 'apiextensions.k8s.io', resource: 'customresourcedefinitions', namespace: '' },
  ].flatMap((each) => verbs.map((verb) => ({ ...each, verb })));
  const answers = await Promise.all(wanted.map(async (each) => ({ ...each, yes: await allowed(api, each) })));
  return answers.filter(({ yes }) => !yes).map(({ verb, resource, namespace: where }) => ({ verb, resource, namespace: where }));
}

interface Access {
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  readonly namespace: string;
}

async function allowed(api: ReadApi, resourceAttributes: Access): Promise<boolean> {
  const review = await api.create<{ status?: { allowed?: boolean } }>('/apis/authorization.k8s.io/v1/selfsubjectaccessreviews', {
    apiVersion: 'authorization.k8s.io/v1',
    kind: 'SelfSubjectAccessReview',
    spec: { resourceAttributes },
  });
  return review.status?.allowed === true;
}
