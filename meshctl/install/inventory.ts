/** What an installation has put into the cluster, found by its label: nothing else is ever pruned or uninstalled. */
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { collectionPath, INSTALLATION, installKinds, VERSION_LABEL } from './kinds.ts';

/** In the order in which they are applied. Kinds that this user may not read, or that the cluster does not have, are left out. */
export async function installedObjects(api: Pick<KubeApi, 'list'>, namespace: string): Promise<KubeObject[]> {
  const lists = await Promise.all(
    installKinds.map(async (kind) => {
      const objects = await api
        .list<KubeObject>(collectionPath(kind), { labelSelector: `${INSTALLATION}=${namespace}` })
        .catch((error: unknown) => {
          if (error instanceof KubeApiError && (error.status === 404 || error.status === 403)) return [];
          throw error;
        });
      return objects.map((object) => ({ ...object, apiVersion: kind.apiVersion, kind: kind.kind }));
    }),
  );
  return lists.flat();
}

/** The control plane's, else that of any piece; undefined where nothing is installed. */
export function installedVersion(objects: readonly KubeObject[]): string | undefined {
  const versions = objects
    .filter(({ kind }) => kind !== 'Namespace')
    .map(({ kind, metadata }) => [kind, metadata.labels?.[VERSION_LABEL]] as const);
  const [, version] = versions.find(([kind, label]) => kind === 'Deployment' && label) ?? versions.find(([, label]) => label) ?? [];
  return version ?? (versions.length > 0 ? 'unknown' : undefined);
}
