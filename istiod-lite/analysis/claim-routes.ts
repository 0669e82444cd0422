/** VirtualServices that route by the claims of a token which nobody verifies: such a rule is never taken. Seen in what waypoints are given. */
import { JwtAuthentication, ServiceRoutes } from '../../common/codec/gen/waypoint.ts';
import { fullHost } from '../model/istio-values.ts';
import { serviceKeyOf } from '../model/mesh-service.ts';
import { at, isRecord, records, texts } from '../model/objects.ts';
import type { SetCheck, World } from './analyzer.ts';
import { message } from './messages.ts';

const CLAIMS = '@request.auth.claims';

export const claimRoutes: SetCheck = {
  name: 'virtualservice.ClaimRoutes',
  doc: 'rules that match claims of a token, where no RequestAuthentication verifies one',
  *check(world) {
    for (const { origin, object } of world.set.of('VirtualService')) {
      const [claim] = claimsOf(object);
      if (claim === undefined) continue;
      const hosts = texts(at(object, 'spec', 'hosts')).map((host) => fullHost(host, origin.namespace, world.config.domain));
      const services = new Set(hosts.flatMap((host) => world.index.view.claims.servicesOfHost(host).map(serviceKeyOf)));
      for (const [waypoint, verified] of services.size > 0 ? verifiedAt(world, services) : []) {
        const bare = [...services].filter((key) => verified.get(key) === false);
        if (bare.length > 0)
          yield message(
            'claimsUnverified',
            origin,
            `${claim}: no RequestAuthentication holds for ${bare.join(', ')} at waypoint ${waypoint}`,
          );
      }
    }
  },
};

function claimsOf(object: unknown): string[] {
  const matches = records(at(object, 'spec', 'http')).flatMap((rule) => records(rule.match));
  return matches
    .flatMap(({ headers, withoutHeaders }) => [headers, withoutHeaders].flatMap((each) => (isRecord(each) ? Object.keys(each) : [])))
    .filter((name) => name.startsWith(CLAIMS));
}

/** For each waypoint, of the services that it routes for, whether it verifies tokens for them. */
function* verifiedAt({ index }: World, services: ReadonlySet<string>): Generator<readonly [string, ReadonlyMap<string, boolean>]> {
  for (const waypoint of index.waypoints()) {
    const [namespace = '', name = ''] = waypoint.split('/');
    const { routes, jwtAuthentications } = index.waypointResources(namespace, name);
    const routed = routes
      .map(({ bytes }) => ServiceRoutes.decode(bytes))
      .map((service) => `${service.namespace}/${service.hostname}`)
      .filter((key) => services.has(key));
    if (routed.length === 0) continue;
    const targets = jwtAuthentications.flatMap(({ bytes }) => JwtAuthentication.decode(bytes).targets);
    const holds = (key: string): boolean =>
      targets.some(({ type }) => type?.$case === 'everything' || (type?.$case === 'service' && type.value === key));
    yield [waypoint, new Map(routed.map((key) => [key, holds(key)]))];
  }
}
