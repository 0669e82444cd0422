/** What most commands do around their work: reach the cluster, perhaps istiod too, and end with one line where something is in the way. */
import type { KubeApi } from '../common/client/kube-api.ts';
import { CommandError } from './command-error.ts';
import { Istiod } from './istiod.ts';
import { type Connection, clusterError, connect } from './terminal.ts';

export async function withApi<T>(connection: Connection, work: (api: KubeApi) => Promise<T>): Promise<T> {
  const api = connect(connection);
  try {
    return await work(api);
  } catch (error) {
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    api.close();
  }
}

export function withIstiod<T>(connection: Connection, work: (api: KubeApi, istiod: Istiod) => Promise<T>): Promise<T> {
  return withApi(connection, async (api) => {
    const istiod = await Istiod.open(api, connection.systemNamespace);
    try {
      return await work(api, istiod);
    } finally {
      istiod.close();
    }
  });
}
