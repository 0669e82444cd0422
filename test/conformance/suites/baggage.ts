/** Baggage headers as ztunnel's tests parse them. */
import { formatBaggage, parseBaggage } from '../../../common/decision/headers.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite } from '../suite.ts';

/** One row of baggage.json. */
interface BaggageFields {
  readonly cluster_id: string | null;
  readonly namespace: string | null;
  readonly workload_name: string | null;
  readonly service_name: string | null;
  readonly revision: string | null;
}

interface BaggageFile {
  readonly parse: readonly { readonly headers: readonly string[]; readonly expect: BaggageFields }[];
  readonly roundTrip: readonly BaggageFields[];
}

const FILE = 'ztunnel/derived/baggage.json';

export const suite: Suite = {
  suite: 'ztunnel/derived',
  *run(cases: Cases): Iterable<CaseResult> {
    if (!cases.has(FILE)) return;
    const file: BaggageFile = JSON.parse(cases.read(FILE));
    for (const [i, row] of (file.parse ?? []).entries()) {
      const name = `baggage/parse ${i + 1}`;
      yield attempt(name, () => compare(name, read(row.headers), row.expect));
    }
    for (const [i, row] of (file.roundTrip ?? []).entries()) {
      const name = `baggage/round trip ${i + 1}`;
      yield attempt(name, () => compare(name, read([write(row)]), row));
    }
  },
};

function read(headers: readonly string[]): BaggageFields {
  const baggage = parseBaggage(headers);
  return {
    cluster_id: baggage.clusterId ?? null,
    namespace: baggage.namespace ?? null,
    workload_name: baggage.workloadName ?? null,
    service_name: baggage.canonicalName ?? null,
    revision: baggage.canonicalRevision ?? null,
  };
}

const write = (row: BaggageFields): string =>
  formatBaggage({
    clusterId: row.cluster_id ?? '',
    namespace: row.namespace ?? '',
    workloadName: row.workload_name ?? '',
    workloadType: 'deployment',
    canonicalName: row.service_name ?? '',
    canonicalRevision: row.revision ?? '',
    locality: { region: '', zone: '', subzone: '' },
  });
