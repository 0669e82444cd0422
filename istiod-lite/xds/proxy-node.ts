/** Who a proxy says it is, and whether the identity it proved may say so. Pure. */
import { isIP } from 'node:net';
import type { Node } from '../../common/codec/gen/discovery.ts';

export interface ProxyNode {
  readonly type: 'ztunnel' | 'waypoint';
  /** `POD.NAMESPACE`. */
  readonly name: string;
  readonly id: string;
  readonly namespace: string;
  /** Empty where the proxy does not say. */
  readonly serviceAccount: string;
  /** Name of the machine. */
  readonly node: string;
  readonly version: string;
  readonly clusterId: string;
  /** Of a waypoint: the name of its Gateway, in its own namespace. Empty for others. */
  readonly gateway: string;
}

/** The proved identity of whoever opened the stream. */
export interface ProxyIdentity {
  readonly namespace: string;
  readonly serviceAccount: string;
}

export type NodeVerdict =
  | { readonly proxy: ProxyNode }
  | { readonly refuse: 'INVALID_ARGUMENT' | 'PERMISSION_DENIED'; readonly message: string };

const MAX_FIELD = 1024;

/**
 * From the first request of a stream: `TYPE~IP~POD.NAMESPACE~DOMAIN` and its metadata.
 * @param identity what the claim is compared with; not at all where it is undefined
 */
export function readProxyNode(node: Node | undefined, identity: ProxyIdentity | undefined): NodeVerdict {
  if (!node?.id) return invalid('the first request of a stream needs node.id');
  const parts = node.id.slice(0, MAX_FIELD).split('~');
  const [type = '', ip = '', name = '', domain = ''] = parts;
  if (parts.length !== 4)
    return invalid(`node.id ${JSON.stringify(node.id)} has ${parts.length} parts, expected TYPE~IP~POD.NAMESPACE~DOMAIN`);
  if (type !== 'ztunnel' && type !== 'waypoint')
    return invalid(`node type ${JSON.stringify(type)} is not served: expected ztunnel or waypoint`);
  if (ip !== '' && isIP(ip) === 0) return invalid(`node.id ${JSON.stringify(node.id)}: ${JSON.stringify(ip)} is no IP address`);
  const metadata = (key: string): string => text(node.metadata?.[key]);
  const namespace = metadata('NAMESPACE') || (domain.split('.')[0] ?? '');
  const serviceAccount = metadata('SERVICE_ACCOUNT');
  if (identity && namespace !== identity.namespace) return foreign(`namespace ${namespace}`, identity);
  if (identity && serviceAccount !== '' && serviceAccount !== identity.serviceAccount)
    return foreign(`service account ${serviceAccount}`, identity);
  return {
    proxy: {
      type,
      name,
      id: node.id,
      namespace,
      serviceAccount,
      node: metadata('NODE_NAME'),
      version: metadata('ISTIO_VERSION'),
      clusterId: metadata('CLUSTER_ID'),
      gateway: metadata('GATEWAY_NAME'),
    },
  };
}

const invalid = (message: string): NodeVerdict => ({ refuse: 'INVALID_ARGUMENT', message });

const foreign = (claim: string, { namespace, serviceAccount }: ProxyIdentity): NodeVerdict => ({
  refuse: 'PERMISSION_DENIED',
  message: `the proxy claims ${claim}, but its token is of ${namespace}/${serviceAccount}`,
});

const text = (value: unknown): string => (typeof value === 'string' ? value.slice(0, MAX_FIELD) : '');
