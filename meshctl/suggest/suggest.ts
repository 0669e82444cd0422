/**
 * The least AuthorizationPolicies that allow what was seen: at pods, by who called which port; at a waypoint's services, by method and path as
 * well. Pure: from the proxies' journals, and from pods and services that say which labels to select by.
 */
import type { KubeObject } from '../../common/client/kube-api.ts';
import type { Decision, JournalRow } from '../../common/decision/journal.ts';

export interface SeenInNamespace {
  readonly namespace: string;
  readonly rows: readonly JournalRow[];
  /** Of the namespace. */
  readonly pods: readonly KubeObject[];
  readonly services: readonly KubeObject[];
  /** Pods that nobody called stay as they are, instead of being closed. */
  readonly open: boolean;
}

export interface Suggested {
  readonly policy: AuthorizationPolicy;
  /** What it stands on, a line each. */
  readonly evidence: readonly string[];
}

export interface AuthorizationPolicy {
  readonly apiVersion: 'security.istio.io/v1';
  readonly kind: 'AuthorizationPolicy';
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly spec: {
    readonly selector?: { readonly matchLabels: Readonly<Record<string, string>> };
    readonly targetRefs?: readonly { readonly kind: string; readonly group: string; readonly name: string }[];
    readonly action?: 'ALLOW';
    readonly rules?: readonly Rule[];
  };
}

interface Rule {
  readonly from: readonly { readonly source: Source }[];
  readonly to: readonly { readonly operation: Operation }[];
}

interface Source {
  readonly principals?: readonly string[];
  readonly notPrincipals?: readonly string[];
  readonly ipBlocks?: readonly string[];
}

interface Operation {
  readonly ports: readonly string[];
  readonly methods?: readonly string[];
  readonly paths?: readonly string[];
}

export interface Suggestion {
  readonly policies: readonly Suggested[];
  /** What was seen and cannot be allowed by a policy, or was refused. */
  readonly notes: readonly string[];
}

export function suggest({ namespace, rows, pods, services, open }: SeenInNamespace): Suggestion {
  const notes: string[] = [];
  const into = rows.filter(({ decision }) => decision.at !== 'outbound' && namespaceOf(decision) === namespace);
  const refused = into.filter(({ decision }) => decision.verdict === 'refused');
  if (refused.length > 0) notes.push(`${callsOf(refused)} calls were refused, and are not allowed here either`);
  const passed = into.filter(({ decision }) => decision.verdict !== 'refused');
  const atPods = passed.filter(({ decision }) => decision.at === 'inbound');
  const atWaypoints = passed.filter(({ decision }) => decision.at !== 'inbound');
  const policies = [
    ...l4Policies(atPods, { namespace, pods, services, notes }),
    ...l7Policies(atWaypoints, { namespace, services, notes }),
  ];
  if (policies.length === 0) return { policies, notes };
  const closed: Suggested = {
    policy: { ...head('allow-nothing', namespace), spec: {} },
    evidence: ['what no other policy here allows is refused, pods that nobody called included'],
  };
  return { policies: open ? policies : [closed, ...policies], notes };
}

const head = (name: string, namespace: string) =>
  ({ apiVersion: 'security.istio.io/v1', kind: 'AuthorizationPolicy', metadata: { name, namespace } }) as const;

const namespaceOf = ({ pod, service }: Decision): string => (pod !== '' ? pod : service).split('/')[0] ?? '';

interface Place {
  readonly namespace: string;
  readonly services: readonly KubeObject[];
  readonly notes: string[];
}

function l4Policies(rows: readonly JournalRow[], place: Place & { readonly pods: readonly KubeObject[] }): Suggested[] {
  const { namespace, notes } = place;
  const groups = new Map<string, { name: string; labels: Labels; rows: JournalRow[] }>();
  for (const row of rows) {
    const selected = selectorOf(row.decision, place);
    if (!selected) {
      notes.push(`pod ${row.decision.pod} is gone and no Service says what it was: ${row.count} calls to it are not considered`);
      continue;
    }
    const key = JSON.stringify(Object.entries(selected.labels).sort());
    const group = groups.get(key) ?? { ...selected, rows: [] };
    group.rows.push(row);
    groups.set(key, group);
  }
  return [...groups.values()].sort(byName).map(({ name, labels, rows: those }) => {
    const rules = [...Map.groupBy(those, ({ decision }) => decision.port)]
      .sort(([a], [b]) => a - b)
      .map(([port, calls]): Rule => ({ from: sourcesOf(calls), to: [{ operation: { ports: [String(port)] } }] }));
    return {
      policy: { ...head(`seen-${name}`, namespace), spec: { selector: { matchLabels: labels }, action: 'ALLOW' as const, rules } },
      evidence: evidenceOf(those, ({ decision }) => `port ${decision.port}`),
    };
  });
}

function l7Policies(rows: readonly JournalRow[], { namespace, services, notes }: Place): Suggested[] {
  const groups = Map.groupBy(rows, ({ decision }) => decision.service);
  return [...groups]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([key, those]): Suggested[] => {
      const name = key.slice(key.indexOf('/') + 1).split('.')[0] ?? '';
      if (key === '' || !services.some(({ metadata }) => metadata.name === name)) {
        notes.push(
          `${callsOf(those)} calls through a waypoint to ${key || 'addresses of pods'} are not considered: a policy there needs a Service`,
        );
        return [];
      }
      const rules = [...Map.groupBy(those, ({ decision }) => whoIs(decision))]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([, calls]): Rule => ({ from: sourcesOf(calls), to: operationsOf(calls).map((operation) => ({ operation })) }));
      return [
        {
          policy: {
            ...head(`seen-${name}-requests`, namespace),
            spec: { targetRefs: [{ kind: 'Service', group: '', name }], action: 'ALLOW' as const, rules: mergeRules(rules) },
          },
          evidence: evidenceOf(those, requestText),
        },
      ];
    });
}

/** Callers who do the same share a rule. */
function mergeRules(rules: readonly Rule[]): Rule[] {
  const merged = new Map<string, Rule>();
  for (const rule of rules) {
    const key = JSON.stringify(rule.to);
    const known = merged.get(key);
    merged.set(key, known ? { ...known, from: mergeSources([...known.from, ...rule.from]) } : rule);
  }
  return [...merged.values()];
}

/** Of one caller: by port, and paths together that have the same methods. */
function operationsOf(calls: readonly JournalRow[]): Operation[] {
  return [...Map.groupBy(calls, ({ decision }) => decision.port)]
    .sort(([a], [b]) => a - b)
    .flatMap(([port, onPort]): Operation[] => {
      const ports = [String(port)];
      // Bytes have no method: whoever sends them may send anything.
      if (onPort.some(({ decision }) => !decision.request)) return [{ ports }];
      const byMethod = [...Map.groupBy(onPort, ({ decision }) => decision.request?.method ?? '')].map(([method, those]) => {
        const paths = new Set(those.map(({ decision }) => decision.request?.path ?? null));
        return { method, paths: [...paths].some((path) => !isExact(path)) ? undefined : ([...paths] as string[]).sort() };
      });
      return [...Map.groupBy(byMethod, ({ paths }) => JSON.stringify(paths ?? null)).values()].map((those) => ({
        ports,
        methods: those.map(({ method }) => method).sort(),
        ...(those[0]?.paths && { paths: those[0].paths }),
      }));
    });
}

/** Whether a policy that names it means it, and nothing more (Istio: `*` at an end, and braces, are patterns). */
const isExact = (path: string | null): boolean => path !== null && path !== '' && !/[*{}]/.test(path);

const whoIs = ({ identity, sourceIp }: Decision): string => identity || sourceIp;

const sourcesOf = (calls: readonly JournalRow[]): Rule['from'] =>
  fromOf(
    calls.flatMap(({ decision }) => (decision.identity === '' ? [] : [decision.identity.replace('spiffe://', '')])),
    calls.flatMap(({ decision }) => (decision.identity === '' ? [decision.sourceIp] : [])),
  );

const mergeSources = (from: Rule['from']): Rule['from'] =>
  fromOf(
    from.flatMap(({ source }) => source.principals ?? []),
    from.flatMap(({ source }) => source.ipBlocks ?? []),
  );

/** Who came without an identity is known by address only; whoever has one does not come in by that. */
const fromOf = (principals: readonly string[], ipBlocks: readonly string[]): Rule['from'] => [
  ...(principals.length > 0 ? [{ source: { principals: unique(principals) } }] : []),
  ...(ipBlocks.length > 0 ? [{ source: { ipBlocks: unique(ipBlocks), notPrincipals: ['*'] } }] : []),
];

const unique = (texts: readonly string[]): string[] => [...new Set(texts)].sort();

type Labels = Readonly<Record<string, string>>;

/** Labels that change with every rollout, or are one pod's. */
const PASSING: ReadonlySet<string> = new Set([
  'pod-template-hash',
  'controller-revision-hash',
  'pod-template-generation',
  'statefulset.kubernetes.io/pod-name',
  'apps.kubernetes.io/pod-index',
  'batch.kubernetes.io/controller-uid',
  'batch.kubernetes.io/job-name',
  'controller-uid',
  'job-name',
]);

/** By the Service that selects the pod, or by the pod's own labels. */
function selectorOf(
  { pod, service }: Decision,
  { pods, services }: Place & { readonly pods: readonly KubeObject[] },
): { name: string; labels: Labels } | undefined {
  const found = pods.find(({ metadata }) => `${metadata.namespace}/${metadata.name}` === pod);
  const called = service.slice(service.indexOf('/') + 1).split('.')[0];
  const selecting = services
    .flatMap((each) => {
      const { selector = {} } = (each.spec ?? {}) as { selector?: Labels };
      const name = each.metadata.name ?? '';
      const matches = found
        ? Object.entries(selector).every(([label, value]) => found.metadata.labels?.[label] === value)
        : name === called && service !== '';
      return Object.keys(selector).length > 0 && matches ? [{ name, labels: selector }] : [];
    })
    .sort(byName);
  const [first] = selecting;
  if (first) return first;
  const labels = Object.fromEntries(Object.entries(found?.metadata.labels ?? {}).filter(([label]) => !PASSING.has(label)));
  if (!found || Object.keys(labels).length === 0) return undefined;
  return { name: labels.app ?? labels['app.kubernetes.io/name'] ?? found.metadata.name ?? '', labels };
}

const byName = (a: { name: string }, b: { name: string }): number => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);

const callsOf = (rows: readonly JournalRow[]): number => rows.reduce((sum, { count }) => sum + count, 0);

const requestText = ({ decision: { request, port } }: JournalRow): string =>
  request ? `${request.method} ${request.path ?? 'more paths than are kept'}, port ${port}` : `port ${port}, no HTTP`;

const MAX_EVIDENCE = 20;

function evidenceOf(rows: readonly JournalRow[], what: (row: JournalRow) => string): string[] {
  const lines = [...Map.groupBy(rows, (row) => `${row.decision.source || whoIs(row.decision)}: ${what(row)}`)]
    .map(([text, those]) => ({ text, count: callsOf(those), lastMs: Math.max(...those.map(({ lastMs }) => lastMs)) }))
    .sort((a, b) => b.count - a.count)
    .map(({ text, count, lastMs }) => `${text}, ${count} times, last ${new Date(lastMs).toISOString().slice(0, 19)}Z`);
  return lines.length > MAX_EVIDENCE ? [...lines.slice(0, MAX_EVIDENCE), `and ${lines.length - MAX_EVIDENCE} more`] : lines;
}
