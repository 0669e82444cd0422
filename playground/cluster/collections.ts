/** The API server's store as controllers and kubelets use it: one typed collection for each kind, edits that are tried again on conflict. */
import type {
  AnyObject,
  ConfigMap,
  DaemonSet,
  Deployment,
  EndpointSlice,
  Job,
  Lease,
  Namespace,
  Node,
  Pod,
  ReplicaSet,
  Secret,
  Service,
  ServiceAccount,
  StatefulSet,
} from '../objects.ts';

export interface Change<T> {
  readonly type: 'added' | 'modified' | 'deleted';
  readonly object: T;
}

/** Reads are immediate and see every write that has been answered. What they return must not be changed; edits get a copy. */
export interface Collection<T extends AnyObject> {
  /** Namespace '' for what belongs to the cluster. */
  get(namespace: string, name: string): T | undefined;
  /** All namespaces without one. */
  list(namespace?: string): T[];
  create(object: T): Promise<T>;
  /** `edit` changes the copy it is given, and returns false to leave all as it was. @returns undefined where the object is gone */
  modify(namespace: string, name: string, edit: (draft: T) => boolean | undefined): Promise<T | undefined>;
  /** The same on the status subresource. */
  modifyStatus(namespace: string, name: string, edit: (draft: T) => boolean | undefined): Promise<T | undefined>;
  /** Not finding it, or another under its name, is no error. */
  delete(namespace: string, name: string, options?: { uid?: string | undefined; graceSeconds?: number }): Promise<void>;
  /** First `added` for everything that is there. @returns how to stop */
  watch(onChange: (change: Change<T>) => void): () => void;
}

export interface TokenRequest {
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly audiences: readonly string[];
  readonly expirationSeconds: number;
  readonly boundPod: { readonly name: string; readonly uid: string; readonly nodeName: string };
}

export interface EventInput {
  readonly about: AnyObject;
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  readonly message: string;
  /** The component that saw it: kubelet, deployment-controller, … */
  readonly source: string;
  readonly node?: string;
}

export interface Cluster {
  readonly pods: Collection<Pod>;
  readonly nodes: Collection<Node>;
  readonly leases: Collection<Lease>;
  readonly namespaces: Collection<Namespace>;
  readonly services: Collection<Service>;
  readonly endpointSlices: Collection<EndpointSlice>;
  readonly configMaps: Collection<ConfigMap>;
  readonly secrets: Collection<Secret>;
  readonly serviceAccounts: Collection<ServiceAccount>;
  readonly deployments: Collection<Deployment>;
  readonly replicaSets: Collection<ReplicaSet>;
  readonly daemonSets: Collection<DaemonSet>;
  readonly statefulSets: Collection<StatefulSet>;
  readonly jobs: Collection<Job>;
  issueToken(request: TokenRequest): string;
  /** Repeated events are counted in one object. Never fails: an event that cannot be written is dropped. */
  record(event: EventInput): void;
}

export const keyOf = ({ metadata }: AnyObject): string => `${metadata.namespace ?? ''}/${metadata.name}`;

export const controllerOf = (object: AnyObject): string | undefined =>
  object.metadata.ownerReferences?.find(({ controller }) => controller === true)?.uid;
