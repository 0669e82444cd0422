/**
 * Where every rule of the mesh's objects is enforced, for `meshctl coverage`: objects are listed anew, as the index keeps of each only what it
 * needs, and each is judged by the index as it is. Whoever sees one namespace gets the objects of that one.
 */
import { KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import type { ClusterApi } from '../kube/cluster-api.ts';
import { coveredKinds } from '../model/coverage.ts';
import type { RuleCoverage } from '../model/coverage-view.ts';
import type { MeshIndex } from '../model/index.ts';
import { allKinds, type KindName, listPath } from '../model/watched-kinds.ts';

export interface CoverageSources {
  readonly api: Pick<ClusterApi, 'listPage'>;
  readonly index: Pick<MeshIndex, 'coverage'>;
  /** Whether an object is this control plane's to look after. */
  inScope(kind: KindName, object: KubeObject): boolean;
  readonly signal: AbortSignal;
}

export interface CoveredRule extends RuleCoverage {
  readonly kind: string;
  /** Empty for objects of the cluster. */
  readonly namespace: string;
  readonly name: string;
}

export interface CoveragePage {
  readonly rules: readonly CoveredRule[];
  /** Rules beyond the limit of one answer. */
  readonly more: number;
}

/** Of one answer; nobody reads as many, and scripts can ask by namespace. */
const MAX_RULES = 20_000;
/** Objects between two turns of everybody else who waits for this process. */
const CHUNK = 100;

/** @param namespace the one whose objects are wanted; undefined for all */
export async function coveragePage({ api, index, inScope, signal }: CoverageSources, namespace: string | undefined): Promise<CoveragePage> {
  const coverage = index.coverage();
  const rules: CoveredRule[] = [];
  let more = 0;
  let judged = 0;
  const take = (kind: KindName, object: KubeObject): void => {
    const { namespace: of = '', name = '' } = object.metadata;
    for (const rule of coverage.of(kind, object)) {
      if (rules.length >= MAX_RULES) more++;
      else rules.push({ kind, namespace: of, name, ...rule });
    }
  };
  for (const kind of coveredKinds) {
    // Few of many pods say anything, and the index knows which.
    const objects = kind === 'Pod' ? coverage.pods() : listed(api, kind, namespace, signal);
    const found: KubeObject[] = [];
    for await (const object of objects) {
      if (++judged % CHUNK === 0) await new Promise((resolve) => setImmediate(resolve));
      const place = kind === 'Namespace' ? object.metadata.name : object.metadata.namespace;
      if ((namespace === undefined || place === namespace) && inScope(kind, object)) found.push(object);
    }
    for (const object of found.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))) take(kind, object);
  }
  return { rules, more };
}

const keyOf = ({ metadata }: KubeObject): string => `${metadata.namespace ?? ''}/${metadata.name ?? ''}`;

async function* listed(
  api: Pick<ClusterApi, 'listPage'>,
  kind: KindName,
  namespace: string | undefined,
  signal: AbortSignal,
): AsyncGenerator<KubeObject> {
  const path = listPath(kind, namespace);
  let next = '';
  do {
    try {
      const page = await api.listPage<KubeObject>(path, { continue: next || undefined }, signal);
      yield* page.items;
      next = page.continue;
    } catch (error) {
      // A kind whose definition is not installed has no objects.
      if (allKinds[kind].optional && error instanceof KubeApiError && error.status === 404) return;
      throw error;
    }
  } while (next !== '');
}
