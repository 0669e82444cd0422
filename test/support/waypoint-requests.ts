/** A request at a waypoint as its records see it when it is over, without the connection that it came by. */
import { parseSpiffeId } from '../../common/base/spiffe.ts';
import { type Connection, RequestContext } from '../../waypoint/http/context.ts';
import { targetOf } from '../../waypoint/inbound/hbone.ts';
import { service } from './builders.ts';
import { FakeExchange } from './waypoint-fakes.ts';

const principal = 'spiffe://cluster.local/ns/shop/sa/web';

export function fakeRequest(path: string, fields: readonly string[], method = 'GET'): RequestContext {
  const connection: Connection = {
    caller: {
      address: { ip: '10.0.0.7', port: 4711 },
      identity: parseSpiffeId(principal),
      principal,
      workload: undefined,
      baggage: undefined,
    },
    target: targetOf({ service: service({ name: 'orders', vips: ['10.96.0.1'] }), port: 80, ip: '10.96.0.1' }),
    local: { ip: '10.0.0.8', port: 15_008 },
    id: 'c'.repeat(32),
  };
  const exchange = new FakeExchange();
  const request = new RequestContext(exchange, connection, { wall: 0, monotonic: 0 });
  request.judged = { ...exchange.head, method, path, fields: [...fields] };
  request.traceId = 'e'.repeat(32);
  return request;
}
