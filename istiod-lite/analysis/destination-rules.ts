/** DestinationRules: TLS that verifies nothing, hosts that are none, subsets without workloads. */
import { fullHost } from '../model/istio-values.ts';
import { at, isRecord, type Labels, records, text, textMap } from '../model/objects.ts';
import type { ObjectCheck, SetCheck } from './analyzer.ts';
import { type Message, message, type Origin } from './messages.ts';
import { selects } from './workloads.ts';

export const caCertificates: ObjectCheck = {
  name: 'destinationrule.CaCertificates',
  doc: 'TLS to a host, or to a port of it, without roots to verify it with',
  *check({ kind, origin, object }) {
    if (kind !== 'DestinationRule') return;
    const policy = at(object, 'spec', 'trafficPolicy');
    const host = text(at(object, 'spec', 'host'));
    // credentialName has an effect where a workloadSelector says whose Secret it is.
    const named = isRecord(at(object, 'spec', 'workloadSelector'));
    yield* unverified('unverifiedHost', origin, at(policy, 'tls'), host, named);
    for (const port of records(at(policy, 'portLevelSettings')))
      yield* unverified('unverifiedPort', origin, port.tls, `${host} port ${at(port.port, 'number')}`, named);
  },
};

function* unverified(
  name: 'unverifiedHost' | 'unverifiedPort',
  origin: Origin,
  tls: unknown,
  place: string,
  named: boolean,
): Generator<Message> {
  const mode = text(at(tls, 'mode'));
  if (mode !== 'SIMPLE' && mode !== 'MUTUAL') return;
  if (text(at(tls, 'caCertificates')) !== '' || (named && text(at(tls, 'credentialName')) !== '')) return;
  yield message(name, origin, `TLS mode ${mode} to ${place} names no caCertificates`);
}

const TOPOLOGY = /^topology\.(?:kubernetes|istio)\.io\//;

export const subsets: SetCheck = {
  name: 'destinationrule.Subsets',
  doc: 'hosts that no service has, and subsets whose labels no workload of the service has',
  *check({ set, config, index, workloads }) {
    for (const { origin, object } of set.of('DestinationRule')) {
      const written = text(at(object, 'spec', 'host'));
      const host = fullHost(written, origin.namespace, config.domain);
      const services = index.view.claims.servicesOfHost(host);
      if (services.length === 0) {
        yield message('unknownHost', origin, `${written} is no service that is known here`);
        continue;
      }
      for (const subset of records(at(object, 'spec', 'subsets'))) {
        // Where a workload runs is its node's label, not its own.
        const labels = Object.entries(textMap(subset.labels)).filter(([name, value]) => !(TOPOLOGY.test(name) && value !== ''));
        if (labels.length === 0) continue;
        const wanted = Object.fromEntries(labels) as Labels;
        const served = services.filter(({ selector }) => selector !== undefined);
        if (served.length === 0) continue;
        const found = served.some(({ namespace, selector }) =>
          workloads.some((one) => one.namespace === namespace && selects(selector ?? {}, one.labels) && selects(wanted, one.labels)),
        );
        if (!found) yield message('subsetWithoutPods', origin, `${text(subset.name)} selects no workload of ${written}`);
      }
    }
  },
};
