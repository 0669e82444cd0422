/**
 * What the real ztunnel showed of its state, read back as if a control plane had sent it, and dumped by us: the dump must be the same.
 * (Whether our control plane would have sent it is another suite's question.)
 */
import { stateDump } from '../../../common/state/config-dump.ts';
import { staticResources } from '../../../common/state/static-config.ts';
import { MeshStateWriter } from '../../../common/state/writer.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite } from '../suite.ts';

type Fields = Record<string, unknown>;

interface RecordedState {
  readonly workloads: readonly (Fields & { readonly uid: string; readonly services?: readonly string[] })[];
  readonly services: readonly (Fields & {
    readonly namespace: string;
    readonly hostname: string;
    readonly endpoints: Record<string, { port: unknown }>;
  })[];
  readonly policies: readonly Fields[];
}

const FOLDER = 'recorded/control-plane';

export const suite: Suite = {
  suite: FOLDER,
  *run(cases: Cases): Iterable<CaseResult> {
    for (const file of cases.list(FOLDER).filter((name) => name.endsWith('.json'))) {
      const name = `${file.replace(/\.json$/, '')}/config_dump`;
      yield attempt(name, () => {
        const recorded: { ztunnel?: Partial<RecordedState> } = JSON.parse(cases.read(`${FOLDER}/${file}`));
        const ztunnel: RecordedState = { workloads: [], services: [], policies: [], ...recorded.ztunnel };
        const writer = new MeshStateWriter({ maxBytes: 32 << 20 });
        for (const push of staticResources(JSON.stringify(asStaticConfig(ztunnel)))) {
          const [rejected] = writer.apply(push).rejected;
          if (rejected) throw new Error(`${rejected.name}: ${rejected.reason}`);
        }
        const { workloads, services, policies } = stateDump(writer);
        return compare(name, normal({ workloads, services, policies }), normal(ztunnel), 'dump');
      });
    }
  },
};

/** A dump names a workload's services and keeps the ports with the service; a configuration has them with the workload. */
function asStaticConfig({ workloads, services, policies }: RecordedState): Fields {
  const portsOf = (key: string, uid: string): unknown =>
    services.find((service) => `${service.namespace}/${service.hostname}` === key)?.endpoints[uid]?.port ?? {};
  return {
    workloads: workloads.map((workload) => ({
      ...workload,
      services: Object.fromEntries((workload.services ?? []).map((key) => [key, portsOf(key, workload.uid)])),
    })),
    services: services.map(({ endpoints: _, ...service }) => service),
    policies,
  };
}

/** Lists as sets, endpoints that belong to workloads outside the record left out. */
function normal(state: { workloads: readonly Fields[]; services: readonly Fields[]; policies: readonly Fields[] }): unknown {
  const uids = new Set(state.workloads.map(({ uid }) => uid));
  const services = state.services.map((service) => ({
    ...service,
    endpoints: Object.fromEntries(Object.entries(service.endpoints as Fields).filter(([uid]) => uids.has(uid))),
  }));
  const sorted = (items: readonly Fields[]): unknown[] => items.map((item) => ordered(item)).sort(byText);
  return { workloads: sorted(state.workloads), services: sorted(services), policies: sorted(state.policies) };
}

/** With the keys of mappings in order, and lists that are sets (of texts or mappings) too. */
function ordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ordered).sort(byText);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, entry]) => [key, key === 'routingPreferences' ? entry : ordered(entry)]),
  );
}

const byText = (a: unknown, b: unknown): number => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);
