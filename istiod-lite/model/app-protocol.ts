/** Which protocol a service's port speaks, from what its author wrote (Istio, pilot/pkg/serviceregistry/ambient; Istio's pkg/config/kube conversion). */
import { AppProtocol } from '../../common/codec/gen/workload.ts';

const WORDS: ReadonlyMap<string, AppProtocol> = new Map([
  ['http', AppProtocol.HTTP11],
  ['http2', AppProtocol.HTTP2],
  ['grpc', AppProtocol.GRPC],
  ['https', AppProtocol.TLS],
  ['tls', AppProtocol.TLS],
  ['tcp', AppProtocol.TCP],
]);

// Kubernetes' own names for appProtocol, KEP-3726.
const KUBERNETES: ReadonlyMap<string, AppProtocol> = new Map([
  ['kubernetes.io/h2c', AppProtocol.HTTP2],
  ['kubernetes.io/ws', AppProtocol.HTTP11],
  ['kubernetes.io/wss', AppProtocol.TLS],
]);

// Servers speak first on these, so sniffing would wait for ever.
const SERVER_FIRST = new Set([25, 53, 3306, 27017]);

export function appProtocolOf(port: { number: number; name: string; protocol: string; appProtocol: string }): AppProtocol {
  if (port.protocol !== '' && port.protocol !== 'TCP') return AppProtocol.UNKNOWN;
  const known = KUBERNETES.get(port.appProtocol);
  if (known !== undefined) return known;
  const word = (port.appProtocol || port.name).toLowerCase();
  if (word === 'grpc-web' || word.startsWith('grpc-web-')) return AppProtocol.UNKNOWN;
  const found = WORDS.get(word.split('-', 1)[0] ?? '');
  if (found !== undefined) return found;
  return word === '' && SERVER_FIRST.has(port.number) ? AppProtocol.TCP : AppProtocol.UNKNOWN;
}

/** ServiceEntry ports say it outright: HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP, TLS. */
export const declaredProtocol = (protocol: string): AppProtocol => WORDS.get(protocol.toLowerCase()) ?? AppProtocol.UNKNOWN;
