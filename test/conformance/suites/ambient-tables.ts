/**
 * Tables of Istio's ambient tests: one pod, service, entry or slice with what is around it, and the workloads, services and conditions
 * that Istio makes of them. They test functions of their own, so they run against our translation's inputs and not through the index.
 */

import { isDeepStrictEqual } from 'node:util';
import { readAuthorizationPolicy } from '../../../istiod-lite/model/authorization-policy.ts';
import type { Condition } from '../../../istiod-lite/model/conditions.ts';
import type { MeshModelConfig } from '../../../istiod-lite/model/config.ts';
import { readEndpointSlice } from '../../../istiod-lite/model/endpoint-slice.ts';
import { allowedNamespaces, readGateway, readGatewayClass } from '../../../istiod-lite/model/gateway.ts';
import { hostnameOwners } from '../../../istiod-lite/model/hostnames.ts';
import type { Inputs } from '../../../istiod-lite/model/inputs.ts';
import type { Labels } from '../../../istiod-lite/model/objects.ts';
import { readPod } from '../../../istiod-lite/model/pod.ts';
import { readTargetedPolicy } from '../../../istiod-lite/model/policy-targets.ts';
import { readService } from '../../../istiod-lite/model/service.ts';
import { entryServices, readServiceEntry } from '../../../istiod-lite/model/service-entry.ts';
import { canaryWeight, readBindingWords, useCanary } from '../../../istiod-lite/model/waypoint-binding.ts';
import { readWorkloadEntry } from '../../../istiod-lite/model/workload-entry.ts';
import { CONFIG, type Fixture, fixture, meshService } from '../../support/ambient-fixture.ts';
import { ABSENT_WAYPOINT_RULE, L7_DENY_RULE } from '../../support/conformance-rules.ts';
import { type Json, kubernetesObject, typeOf } from '../../support/go-objects.ts';
import { gateway } from '../../support/kube-objects.ts';
import { expected, plainService, plainWorkload } from '../../support/workloadapi.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite, uniqueNames } from '../suite.ts';

type Row = Json & { readonly name?: string; readonly testName?: string; readonly inputs?: readonly unknown[] };

const FOLDER = 'istio/derived';
const quiet = (): void => {};

const tables: Readonly<Record<string, (name: string, row: Row) => CaseResult>> = {
  'ambient-pod-workloads': (name, row) => {
    const around = fixture(row.inputs ?? []);
    const pod = readPod(kubernetesObject(row.pod), quiet);
    around.inputs.setPod(pod?.key ?? '', pod);
    return compareResult(name, row, row.pod, workloads(around, `Pod/${pod?.key}`), 'workloads');
  },
  'ambient-workloadentry-workloads': (name, row) => {
    const around = withWorkloadEntry(row);
    return compareResult(name, row, row.we, workloads(around.fixture, around.source), 'workloads');
  },
  'ambient-endpointslice-workloads': (name, row) => {
    const around = fixture(row.inputs ?? []);
    const slice = readEndpointSlice(kubernetesObject(row.slice), quiet);
    around.inputs.slices.set(slice?.key ?? '', slice);
    return compare(name, workloads(around, `EndpointSlice/${slice?.key}`), list(row.result).map(expected), 'workloads');
  },
  'ambient-serviceentry-workloads': (name, row) => {
    const around = withServiceEntry(row);
    return compare(name, workloads(around.fixture, around.source), list(row.result).map(expected), 'workloads');
  },
  'ambient-service-services': (name, row) => {
    const { fixture: around, source } = withService(row);
    const services = (around.inputs.services.get(source)?.services ?? []).map((service) =>
      around.translation.services.message(service, true),
    );
    return compareResult(
      name,
      row,
      row.svc,
      services.map((service) => service && plainService(service)),
      'services',
    );
  },
  'ambient-serviceentry-services': (name, row) => {
    const { fixture: around, source } = withServiceEntry(row);
    // The table's function knows one ServiceEntry only and leaves canonical to another one.
    const services = (around.inputs.services.get(source)?.services ?? []).map((service) =>
      around.translation.services.message(service, false),
    );
    return compareResult(
      name,
      row,
      row.se,
      services.map((service) => service && plainService(service)),
      'services',
    );
  },
  'ambient-service-conditions': (name, row) => {
    const { fixture: around, source } = withService(row);
    return compareConditions(name, around.translation.services.conditions(source), row.conditions);
  },
  'ambient-workloadentry-conditions': (name, row) => {
    const { fixture: around, source } = withWorkloadEntry(row);
    const { condition } = around.translation.workloads.of(source);
    return compareConditions(name, condition ? [condition] : [], row.conditions);
  },
  'ambient-select-workload-services': (name, row) => {
    const claims = list(row.inputs).map((item) => meshService((item as Json).ServiceInfo as Json));
    const { byNamespace, canonical } = hostnameOwners(claims);
    const actual = {
      winners: Object.fromEntries([...byNamespace].map(([namespace, service]) => [namespace, service.name])),
      canonical: canonical?.name ?? '',
    };
    return compare(name, actual, { winners: row.wantWinners, canonical: row.wantCanonical }, 'owners');
  },
  'ambient-authz-status': policyStatus,
  'ambient-use-waypoint-canary': (name, row) => {
    const found = useCanary(labels(row.labels), labels(row.nsLabels), String(row.defaultNS));
    return compare(name, found ? { Name: found.name, Namespace: found.namespace } : {}, expected(row.want ?? {}), 'canary');
  },
  'ambient-canary-weight': (name, row) => {
    const weight = canaryWeight(labels(row.anns), labels(row.nsAnns));
    return compare(name, { weight: weight ?? 0, valid: weight !== undefined }, { weight: row.wantWeight, valid: row.wantValid }, 'weight');
  },
  'ambient-waypoint-allowed-routes': (name, row) => {
    const found = readGateway(CONFIG, named(row.gateway), quiet);
    if (!found) throw new Error('the Gateway was not read');
    const allowed = allowedNamespaces(found, readGatewayClass(kubernetesObject(row.gatewayClass), quiet));
    const want = row.expected as { FromNamespaces: string; Selector?: unknown };
    // Istio keeps a selector for All as well; what it picks is everything.
    const selector = want.FromNamespaces === 'Selector' ? kubernetesObject(want.Selector) : undefined;
    return compare(
      name,
      { from: allowed.from, selector: allowed.from === 'Selector' ? allowed.selector : undefined },
      { from: want.FromNamespaces, selector },
    );
  },
};

/** Rows of this table see what the rows before them made. */
function policyTargets(rows: readonly Row[], unique: (name: string) => string): CaseResult[] {
  const { config, inputs, translation } = fixture([]);
  inputs.setNamespace('ns1', { labels: { 'istio.io/use-waypoint': 'waypoint' }, annotations: {} });
  inputs.setGateway('ns1/waypoint', readGateway(config, gateway({ name: 'waypoint', namespace: 'ns1' }), quiet));
  return rows.map((row) => {
    const name = unique(`ambient-waypoint-policy-status/${row.testName}`);
    return attempt(name, () => {
      for (const item of list(row.gatewayClasses)) {
        const read = readGatewayClass(kubernetesObject(item), quiet);
        inputs.setGatewayClass(read?.name ?? '', read);
      }
      for (const item of list(row.services)) placeService(inputs, config, kubernetesObject(item));
      for (const item of list(row.serviceEntries)) placeServiceEntry(inputs, config, kubernetesObject(item));
      const policy = readTargetedPolicy(kubernetesObject(row.policy), quiet);
      if (!policy) throw new Error('the policy was not read');
      const statuses = policy.targets.map((target) => translation.policies.targetStatus(policy, target));
      const want = list(row.expect).map((item) => item as { Bound: boolean; Status: { Reason: string } });
      const ours = statuses.map(({ bound, reason }) => ({ bound, reason }));
      return compare(
        name,
        ours,
        want.map(({ Bound, Status }) => ({ bound: Bound, reason: Status.Reason })),
        'targets',
      );
    });
  });
}

/** Of things that later parts of the project bring. */
const unbuilt: Readonly<Record<string, string>> = {
  'ambient-match-service-scope': 'services are not shared between clusters yet (serviceScopeConfigs)',
  'ambient-service-owning-waypoints': 'the function under test is internal to Istio: it lists the waypoints that a Service message names',
};

export const suite: Suite = {
  suite: FOLDER,
  *run(cases: Cases): Iterable<CaseResult> {
    for (const file of cases.list(FOLDER).filter((name) => name.startsWith('ambient-') && name.endsWith('.json'))) {
      const stem = file.slice(0, -5);
      const unique = uniqueNames();
      const run = tables[stem];
      const { cases: rows }: { cases: Row[] } = JSON.parse(cases.read(`${FOLDER}/${file}`));
      if (stem === 'ambient-waypoint-policy-status') {
        yield* policyTargets(rows, unique);
        continue;
      }
      for (const row of rows) {
        const name = unique(`${stem}/${row.name ?? row.testName ?? 'row'}`);
        if (run) yield attempt(name, () => run(name, row));
        else yield { case: name, verdict: 'skip', reason: unbuilt[stem] ?? 'no such table is known' };
      }
    }
  },
};

const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : value === null || value === undefined ? [] : [value]);

const labels = (value: unknown): Labels => (value ?? {}) as Labels;

/** Objects of some tables have no name, which they need nowhere. */
const named = (value: unknown): unknown => {
  const object = kubernetesObject(value) as { metadata?: Json };
  return { ...object, metadata: { name: 'unnamed', namespace: 'ns', ...object.metadata } };
};

/** Compares with the row's result, in which an absent waypoint of the object's own choice refuses. */
function compareResult(name: string, row: Row, object: unknown, actual: readonly unknown[], what: string): CaseResult {
  const absent = absentWaypoint(row, object);
  const want = list(row.result).map((item) => expected(absent ? { ...(item as Json), Waypoint: absent } : item));
  const result = compare(name, actual, want, what);
  return absent && result.verdict === 'pass' ? { ...result, reason: `differs: ${ABSENT_WAYPOINT_RULE}` } : result;
}

function absentWaypoint(row: Row, object: unknown): Json | undefined {
  const { labels: own = {}, namespace = '' } = (kubernetesObject(object) as { metadata: { labels?: Labels; namespace?: string } }).metadata;
  const name = own['istio.io/use-waypoint'];
  const at = own['istio.io/use-waypoint-namespace'] ?? namespace;
  const isThere = list(row.inputs).some(
    (item) => typeOf(item) === 'Waypoint' && isDeepStrictEqual(nameOf(item), { Name: name, Namespace: at }),
  );
  if (!name || name === 'none' || isThere) return undefined;
  return { Destination: { Hostname: { Namespace: at, Hostname: `${name}.${at}.svc.${CONFIG.domain}` } }, HboneMtlsPort: 15008 };
}

function nameOf(waypoint: unknown): Json {
  const { Name, Namespace } = (waypoint as { Named: Json }).Named;
  return { Name, Namespace };
}

interface Placed {
  readonly fixture: Fixture;
  readonly source: string;
}

function withWorkloadEntry(row: Row): Placed {
  const around = fixture(row.inputs ?? []);
  // Without an address and a network, an entry is nowhere; one table leaves both out because it is about something else.
  const object = kubernetesObject(row.we) as { spec?: Json };
  const entry =
    readWorkloadEntry(object, quiet) ?? readWorkloadEntry({ ...object, spec: { network: CONFIG.network, ...object.spec } }, quiet);
  around.inputs.setWorkloadEntry(entry?.key ?? '', entry);
  return { fixture: around, source: `WorkloadEntry/${entry?.key}` };
}

function withService(row: Row): Placed {
  const around = fixture(row.inputs ?? []);
  return { fixture: around, source: placeService(around.inputs, around.config, kubernetesObject(row.svc)) };
}

function withServiceEntry(row: Row): Placed {
  const around = fixture(row.inputs ?? []);
  return { fixture: around, source: placeServiceEntry(around.inputs, around.config, kubernetesObject(row.se)) };
}

/** @returns its source; empty for an object that is no service */
function placeService(inputs: Inputs, config: MeshModelConfig, object: unknown): string {
  const service = readService(config, object, quiet);
  if (!service) return '';
  const { key, namespace } = service;
  inputs.setServices('Service', key, { key, namespace, words: readBindingWords(object), services: [service] });
  return `Service/${key}`;
}

function placeServiceEntry(inputs: Inputs, config: MeshModelConfig, object: unknown): string {
  const entry = readServiceEntry(config, object, quiet);
  if (!entry) throw new Error('the ServiceEntry was not read');
  const visibility = config.serviceEntryVisibility?.(inputs.namespace(entry.namespace).labels) ?? 'PUBLIC';
  const { key, namespace } = entry;
  inputs.setServiceEntry(key, entry);
  inputs.setServices('ServiceEntry', key, { key, namespace, words: readBindingWords(object), services: entryServices(entry, visibility) });
  return `ServiceEntry/${key}`;
}

const workloads = ({ translation }: Fixture, source: string): readonly unknown[] =>
  translation.workloads.of(source).workloads.map(plainWorkload);

/** Status and reason: the words are our own. */
function compareConditions(name: string, actual: readonly Condition[], want: unknown): CaseResult {
  const wanted = Object.values((want ?? {}) as Json).filter((condition) => condition !== null && typeof condition === 'object') as Json[];
  const ours = actual.map(({ status, reason }) => ({ status: status === 'True', reason }));
  return compare(
    name,
    ours,
    wanted.map(({ Status, Reason }) => ({ status: Status, reason: Reason })),
    'conditions',
  );
}

/**
 * A row without a message is a policy that is enforced as written. `effectiveRules` is false where Istio's form of a DENY never matches;
 * ours always does, which is the rule about DENY at L4.
 */
function policyStatus(name: string, row: Row): CaseResult {
  const policy = readAuthorizationPolicy(CONFIG, named(row.inputAuthzPol), quiet);
  const want = row.expectStatusMessage as { Reason: string } | null;
  const result = compare(name, policy?.condition?.reason === 'Accepted' ? undefined : policy?.condition?.reason, want?.Reason, 'reason');
  if (result.verdict === 'fail' || row.checkEffectiveRules !== true) return result;
  const effective = (policy?.authorization?.groups ?? []).some(({ rules }) =>
    rules.every(({ matches }) => matches.some((match) => Object.values(match).some((values) => values.length > 0))),
  );
  if (row.expectEffectiveRules === false && effective) return { ...result, reason: `differs: ${L7_DENY_RULE}` };
  return compare(name, effective, row.expectEffectiveRules, 'rules that match');
}
