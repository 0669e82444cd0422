/** Facts of a request that went well, of which a test changes what it is about. */
import type { TelemetryFacts } from '../../common/decision/telemetry-facts.ts';

const peer = (name: string): NonNullable<TelemetryFacts['source']> => ({
  name: `${name}-1`,
  namespace: 'shop',
  workload: name,
  type: 'deployment',
  cluster: 'Kubernetes',
  service: name,
  revision: 'v1',
  identity: `spiffe://cluster.local/ns/shop/sa/${name}`,
});

export const factsOf = (
  fields: Partial<TelemetryFacts> & { headers?: Record<string, string>; answered?: Record<string, string> } = {},
): TelemetryFacts => {
  const { headers = {}, answered = {}, ...rest } = fields;
  return {
    startedAt: Date.UTC(2026, 10, 21, 19, 5, 7, 89),
    durationMs: 12.4,
    answeredMs: 10,
    method: 'GET',
    path: '/orders?id=1',
    authority: 'orders',
    scheme: 'http',
    protocol: 'HTTP/1.1',
    requestHeader: (name) => headers[name],
    responseHeader: (name) => answered[name],
    responseTrailer: () => undefined,
    requestId: 'id-1',
    responseCode: 200,
    responseFlags: '-',
    responseCodeDetails: 'via_upstream',
    grpcStatus: undefined,
    bytesReceived: 0,
    bytesSent: 42,
    downstreamRemote: { ip: '10.0.0.7', port: 4711 },
    downstreamLocal: { ip: '10.96.0.1', port: 80 },
    upstreamHost: { ip: '10.0.0.1', port: 8080 },
    upstreamCluster: 'inbound-vip|80|http|orders.shop.svc.cluster.local',
    upstreamFailure: undefined,
    routeName: 'default',
    serverName: undefined,
    attempts: 1,
    traceId: 'a'.repeat(32),
    spanId: 'b'.repeat(16),
    principal: 'spiffe://cluster.local/ns/shop/sa/web',
    localPrincipal: 'spiffe://cluster.local/ns/shop/sa/waypoint',
    source: peer('web'),
    destination: peer('orders'),
    code: undefined,
    policy: undefined,
    ...rest,
  };
};
