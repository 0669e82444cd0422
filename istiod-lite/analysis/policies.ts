/** Policies that select nothing, or nobody of the mesh, or that name what is not there. */
import { parseCidr } from '../../common/base/address.ts';
import * as names from '../model/names.ts';
import { at, type Labels, records, text, textMap, texts } from '../model/objects.ts';
import { hasTargets } from '../model/request-authentication.ts';
import { readWaypointWords, requiredWaypoint } from '../model/required-waypoint.ts';
import type { SetCheck, World } from './analyzer.ts';
import { message } from './messages.ts';
import type { AnalyzedObject } from './object-set.ts';
import { annotationsOf, selects, type Workload } from './workloads.ts';

const SELECTING = ['AuthorizationPolicy', 'PeerAuthentication', 'RequestAuthentication'] as const;

const MOST_NAMED = 5;

/** Labels that a policy selects by, undefined where it holds for all workloads of its namespace. */
const selectorOf = ({ object }: AnalyzedObject): Labels | undefined => {
  const labels = textMap(at(object, 'spec', 'selector', 'matchLabels'));
  return Object.keys(labels).length > 0 ? labels : undefined;
};

function selectedBy({ config, workloads }: World, policy: AnalyzedObject): Workload[] {
  const selector = selectorOf(policy) ?? {};
  const everywhere = policy.origin.namespace === config.rootNamespace;
  return workloads.filter(({ namespace, labels }) => (everywhere || namespace === policy.origin.namespace) && selects(selector, labels));
}

export const selectors: SetCheck = {
  name: 'policy.Selectors',
  doc: 'policies whose selector picks no workload, or workloads that are not in the mesh',
  *check(world) {
    for (const kind of SELECTING) {
      for (const policy of world.set.of(kind)) {
        if (kind !== 'PeerAuthentication' && hasTargets(policy.object)) continue;
        const selector = selectorOf(policy);
        // For the whole mesh, or a default for a namespace's pods to come.
        if (selector === undefined && (policy.origin.namespace === world.config.rootNamespace || kind !== 'AuthorizationPolicy')) continue;
        const found = selectedBy(world, policy);
        const outside = found.filter(({ inMesh }) => !inMesh);
        if (found.length === 0)
          yield message('noWorkloads', policy.origin, selector ? labelText(selector) : `namespace ${policy.origin.namespace} has none`);
        else if (outside.length > 0) yield message('outOfMesh', policy.origin, named(outside.map(({ id }) => id)));
      }
    }
  },
};

export const sourceNamespaces: SetCheck = {
  name: 'authorizationpolicy.SourceNamespaces',
  doc: 'namespaces that rules name and that do not exist',
  *check({ set }) {
    const known = new Set([...set.values()].map(({ origin, kind }) => (kind === 'Namespace' ? origin.name : origin.namespace)));
    for (const { origin, object } of set.of('AuthorizationPolicy')) {
      for (const rule of records(at(object, 'spec', 'rules'))) {
        for (const { source } of records(rule.from)) {
          for (const pattern of [...texts(at(source, 'namespaces')), ...texts(at(source, 'notNamespaces'))]) {
            if (![...known].some((namespace) => namespace !== '' && fits(pattern, namespace)))
              yield message('notFound', origin, `namespace ${JSON.stringify(pattern)} does not exist`);
          }
        }
      }
    }
  },
};

function fits(pattern: string, name: string): boolean {
  if (pattern === '*') return true;
  if (pattern.startsWith('*')) return name.endsWith(pattern.slice(1));
  return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}

/** Of a Gateway's pods policies select nothing (Istio, pkg/config/analysis/analyzers/k8sgateway). */
export const gatewaySelectors: SetCheck = {
  name: 'policy.GatewaySelectors',
  doc: 'policies whose selector picks the pods of a Gateway, which only targetRefs reach',
  *check({ set, workloads }) {
    const proxies = workloads.filter(({ labels }) => labels[names.GATEWAY_NAME] !== undefined);
    for (const kind of ['AuthorizationPolicy', 'RequestAuthentication', 'WasmPlugin', 'Telemetry']) {
      for (const policy of set.of(kind)) {
        const selector = selectorOf(policy);
        if (!selector || hasTargets(policy.object)) continue;
        const picked = proxies.filter(({ namespace, labels }) => namespace === policy.origin.namespace && selects(selector, labels));
        const gateways = new Set(picked.map(({ namespace, labels }) => `${namespace}/${labels[names.GATEWAY_NAME]}`));
        if (gateways.size > 0) yield message('ineffectiveSelector', policy.origin, `${[...gateways].join(', ')}: name it in targetRefs`);
      }
    }
  },
};

export const strictCallers: SetCheck = {
  name: 'peerauthentication.UncapturedCallers',
  doc: 'STRICT where callers have no identity: workloads beside it that are not in the mesh, Services that are open to the outside',
  *check(world) {
    const { set, workloads, index } = world;
    for (const policy of set.of('PeerAuthentication')) {
      if (!isStrict(policy)) continue;
      const guarded = selectedBy(world, policy).filter(({ inMesh }) => inMesh);
      if (guarded.length === 0) continue;
      const namespaces = new Set(guarded.map(({ namespace }) => namespace));
      const outside = workloads.filter(({ inMesh, namespace }) => !inMesh && namespaces.has(namespace));
      if (outside.length > 0)
        yield message(
          'uncaptured',
          policy.origin,
          `callers of its namespace that are not in the mesh: ${named(outside.map(({ id }) => id))}`,
        );
      const open = set.of('Service', '').filter(({ origin, object }) => {
        if (!['NodePort', 'LoadBalancer'].includes(text(at(object, 'spec', 'type')))) return false;
        const selector = index.view.services.get(`Service/${origin.namespace}/${origin.name}`)?.services[0]?.selector;
        return selector !== undefined && guarded.some((one) => one.namespace === origin.namespace && selects(selector, one.labels));
      });
      if (open.length > 0)
        yield message(
          'uncaptured',
          policy.origin,
          `whoever comes from outside of the cluster through ${named(open.map(({ key }) => `Service ${key}`))}`,
        );
    }
  },
};

const isStrict = ({ object }: AnalyzedObject): boolean => {
  const ports = at(object, 'spec', 'portLevelMtls');
  const modes = Object.values(typeof ports === 'object' && ports !== null ? ports : {}).map((one) => at(one, 'mode'));
  return [at(object, 'spec', 'mtls', 'mode'), ...modes].includes('STRICT');
};

export const addressFamilies: SetCheck = {
  name: 'authorizationpolicy.AddressFamilies',
  doc: 'rules whose address ranges are of a family that no workload has',
  *check({ set, workloads }) {
    const present = new Set(workloads.flatMap(({ addresses }) => addresses.map(familyOf)));
    present.delete(undefined);
    if (present.size !== 1) return;
    for (const { origin, object } of set.of('AuthorizationPolicy')) {
      for (const [index, rule] of records(at(object, 'spec', 'rules')).entries()) {
        for (const { source } of records(rule.from)) {
          const ranges = texts(at(source, 'ipBlocks'));
          const families = ranges.map(familyOf);
          if (ranges.length === 0 || families.includes(undefined) || families.some((family) => present.has(family))) continue;
          const [has] = [...present];
          yield message(
            'family',
            origin,
            `rule ${index}: ${ranges.slice(0, MOST_NAMED).join(', ')} never match, as all workloads have IPv${has} addresses`,
          );
        }
      }
    }
  },
};

function familyOf(range: string): 4 | 6 | undefined {
  const parsed = parseCidr(range);
  return parsed && (parsed.bytes.length === 4 ? 4 : 6);
}

export const requiredWaypoints: SetCheck = {
  name: 'workload.RequiredWaypoint',
  doc: 'pods that let in only what comes through a waypoint (warren.dev/require-waypoint) and have none',
  *check({ set, workloads, index }) {
    const silent = (): void => undefined;
    const inherited = new Map(set.of('Namespace').map(({ key, object }) => [key, readWaypointWords(annotationsOf(object), silent)]));
    for (const { id, namespace, labels, annotations } of workloads) {
      const own = readWaypointWords(annotations, silent);
      const required = requiredWaypoint(own, inherited.get(namespace) ?? { required: undefined, exceptPorts: [] });
      if (!required || labels[names.GATEWAY_NAME] !== undefined) continue;
      const words = index.view.namespace(namespace).labels[names.USE_WAYPOINT];
      const services = index.view
        .selecting(namespace, labels)
        .map(({ source, key }) => index.view.services.get(`${source}/${key}`)?.words.labels);
      const bound = [labels[names.USE_WAYPOINT], ...services.map((found) => found?.[names.USE_WAYPOINT] ?? words)];
      if (bound.some((name) => name !== undefined && name !== 'none')) continue;
      const [kind = '', key = ''] = id.split(' ');
      const origin = set.find(kind, key)?.origin ?? { kind, namespace, name: key };
      const consequence = required.always ? 'what comes by its address alone is refused' : 'nothing comes of it';
      yield message(
        'requireWaypoint',
        origin,
        `it asks for a waypoint (${names.REQUIRE_WAYPOINT}), and neither it nor a service of it names one: ${consequence}`,
      );
    }
  },
};

const labelText = (labels: Labels): string =>
  Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join(',');

function named(items: readonly string[]): string {
  const first = items.slice(0, MOST_NAMED).join(', ');
  return items.length > MOST_NAMED ? `${first} and ${items.length - MOST_NAMED} more` : first;
}
