/** What istiod needs of a cluster: an API server, or a folder of files that answers like one. */
import type { KubeApi } from '../../common/client/kube-api.ts';

export type ClusterApi = Pick<KubeApi, 'get' | 'create' | 'replace' | 'patch' | 'delete' | 'listPage' | 'watch' | 'close'>;
