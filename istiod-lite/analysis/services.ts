/** Services and ServiceEntries: ports whose protocol nobody says, entries that contradict each other. */
import { at, records, text, texts } from '../model/objects.ts';
import type { ObjectCheck, SetCheck } from './analyzer.ts';
import { type Message, message } from './messages.ts';
import type { AnalyzedObject } from './object-set.ts';
import { areSeenTogether } from './visibility.ts';

/** Istio, pkg/config/protocol: what a port's name may begin with. */
const PROTOCOL = /^(?:grpc-web|grpc|http2|https|http|tcp|tls|udp|mongo|mysql|redis|hbone|double-hbone)(?:-|$)/;
// Everybody's, and nobody's to rename.
const SYSTEM: ReadonlySet<string> = new Set(['kube-system', 'kube-public', 'kube-node-lease', 'local-path-storage']);

export const portNames: ObjectCheck = {
  name: 'service.PortNames',
  doc: 'ports of Services that say their protocol neither by appProtocol nor by their name',
  *check({ kind, group, origin, object }, { config }) {
    if (kind !== 'Service' || group !== '' || SYSTEM.has(origin.namespace) || origin.namespace === config.rootNamespace) return;
    const external = at(object, 'spec', 'type') === 'ExternalName';
    for (const port of records(at(object, 'spec', 'ports'))) {
      if (text(port.appProtocol) !== '' || text(port.protocol) === 'UDP') continue;
      const name = text(port.name).toLowerCase();
      const title = `${text(port.name) || '(without a name)'} (${port.port})`;
      // A name that is another one's has no address of its own, by which alone TCP could be told apart.
      if (external && name === 'tcp')
        yield message('externalName', origin, `${title} is TCP, which cannot be told apart without an address`);
      else if (!PROTOCOL.test(name)) yield message(external ? 'externalName' : 'portName', origin, `${title} says no protocol by its name`);
    }
  },
};

export const entryAddresses: ObjectCheck = {
  name: 'serviceentry.Addresses',
  doc: 'ServiceEntries with TCP ports that have no address and are given none',
  *check({ kind, origin, object }, { config }) {
    if (kind !== 'ServiceEntry' || config.autoAddresses !== undefined || texts(at(object, 'spec', 'addresses')).length > 0) return;
    const ports = records(at(object, 'spec', 'ports')).filter(({ protocol }) => ['', 'TCP'].includes(text(protocol).toUpperCase()));
    if (ports.length > 0) yield message('addressesRequired', origin, `port ${ports.map(({ number }) => number).join(', ')} is TCP`);
  },
};

export const entryProtocols: SetCheck = {
  name: 'serviceentry.Protocols',
  doc: 'ServiceEntries that give the same host and port different protocols, seen from the same namespaces',
  *check({ set }) {
    const claims = new Map<string, { readonly one: AnalyzedObject; readonly protocol: string }[]>();
    for (const one of set.of('ServiceEntry')) {
      for (const host of texts(at(one.object, 'spec', 'hosts'))) {
        for (const port of records(at(one.object, 'spec', 'ports'))) {
          const place = `${host.toLowerCase()} port ${port.number}`;
          claims.set(place, [...(claims.get(place) ?? []), { one, protocol: text(port.protocol).toUpperCase() || 'TCP' }]);
        }
      }
    }
    for (const [place, found] of claims) yield* contradictions(place, found);
  },
};

function* contradictions(place: string, found: readonly { readonly one: AnalyzedObject; readonly protocol: string }[]): Generator<Message> {
  for (const { one, protocol } of found) {
    const others = found.filter((other) => other.protocol !== protocol && areSeenTogether(one, other.one));
    if (others.length === 0) continue;
    const keys = [one.key, ...others.map((other) => other.one.key)].sort();
    const protocols = [protocol, ...others.map((other) => other.protocol)].sort();
    yield message(
      'conflictingProtocols',
      one.origin,
      `${keys.join(', ')} give ${place} the protocols ${[...new Set(protocols)].join(', ')}`,
    );
  }
}
