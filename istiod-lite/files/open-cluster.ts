/** Where the objects come from: an API server, or files. */
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import { KubeApi } from '../../common/client/kube-api.ts';
import type { ClusterApi } from '../kube/cluster-api.ts';
import type { IstiodSettings } from '../settings.ts';
import { FileCluster } from './file-cluster.ts';

/** @throws Error naming what is missing */
export function openCluster(
  { configDirectory, stateDirectory, kubeconfig }: Pick<IstiodSettings, 'configDirectory' | 'stateDirectory' | 'kubeconfig'>,
  env: Readonly<Record<string, string | undefined>>,
  clock: Clock,
  log: Log,
): ClusterApi {
  if (configDirectory === undefined) return KubeApi.load({ env, ...(kubeconfig && { kubeconfig }) });
  return new FileCluster({ directory: configDirectory, stateDirectory, clock, log });
}
