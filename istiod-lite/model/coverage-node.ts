/** What ztunnels enforce, rule by rule: policies of connections, mTLS modes, and waypoints that pods insist on. */
import { readAuthorizationPolicy } from './authorization-policy.ts';
import {
  type CoverageView,
  eachRule,
  inPart,
  type Judge,
  type Member,
  narrowed,
  nowhere,
  podsText,
  type RuleCoverage,
  type Verdict,
  wholly,
} from './coverage-view.ts';
import * as names from './names.ts';
import { at, type Labels, readMeta } from './objects.ts';
import { effectiveMode, type MtlsMode, type PeerAuthentication, readPeerAuthentication } from './peer-authentication.ts';
import { readWaypointWords, requiredWaypoint } from './required-waypoint.ts';

/** An AuthorizationPolicy without targets. */
export const connectionRules: Judge = (view, object) => {
  const { config } = view;
  return eachRule(object, 'rules', (item, rule) => {
    const problems: string[] = [];
    const policy = readAuthorizationPolicy(config, item === undefined ? object : narrowed(object, { rules: [item] }), (problem) =>
      problems.push(problem),
    );
    const line = (verdict: Verdict): RuleCoverage => ({ rule, services: [], ...verdict });
    const { condition, authorization } = policy ?? {};
    if (!policy || !condition) return line(nowhere('could not be read'));
    if (condition.status !== 'True') return line(nowhere(`${condition.reason}: ${condition.message}`));
    if (authorization?.dryRun) return line(nowhere('a dry run: it is logged what it would refuse, and nothing is refused'));
    const everywhere = policy.namespace === config.rootNamespace;
    const members = selected(view.members(everywhere ? undefined : policy.namespace), policy.selector);
    const none =
      policy.selector && Object.keys(policy.selector).length > 0 ? `no pod has ${labelText(policy.selector)}` : NO_PODS(everywhere);
    const differs = condition.reason === 'Accepted' ? problems : [`${condition.reason}: ${condition.message}`];
    return line(atNode(members, none, differs));
  });
};

/** At the pods of the mesh among these. @param differs what is not as it is written */
export function atNode(members: readonly Member[], none: string, differs: readonly string[], consequence = ''): Verdict {
  const inMesh = members.filter((member) => member.inMesh).map(({ key }) => key);
  const outside = members.filter((member) => !member.inMesh).map(({ key }) => key);
  if (members.length === 0) return nowhere(none);
  if (inMesh.length === 0) return nowhere(`not in the mesh: ${podsText(outside)}`);
  const left = outside.length === 0 ? [] : [`not in the mesh: ${podsText(outside)}`];
  const place = `at ${podsText(inMesh)}${consequence === '' ? '' : `; ${consequence}`}`;
  if (differs.length + left.length > 0) return inPart(inMesh, [...differs, ...left, place].join('; '));
  return wholly('node', inMesh, place);
}

const NO_PODS = (everywhere: boolean): string => (everywhere ? 'the cluster has no pods' : 'its namespace has no pods');

const selected = (members: readonly Member[], selector: Labels | undefined): Member[] =>
  members.filter(({ labels }) => Object.entries(selector ?? {}).every(([name, value]) => labels[name] === value));

const labelText = (labels: Labels): string =>
  Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join(',');

const CONSEQUENCES: Readonly<Record<MtlsMode, string>> = {
  STRICT: 'plaintext is refused',
  PERMISSIVE: 'plaintext is let in as well',
  DISABLE: 'plaintext is let in as well',
  UNSET: '',
};

/** What an ambient mesh cannot do: peers in it come by mTLS in any case. */
const DISABLED = 'DISABLE: peers in the mesh go on coming by mTLS, as with PERMISSIVE';

/** The mode of the object, and that of each port. */
export const modeRules: Judge = (view, object) => {
  const { rootNamespace } = view.config;
  const problems: string[] = [];
  const peer = readPeerAuthentication(rootNamespace, object, (problem) => problems.push(problem));
  if (!peer) return [{ rule: '', services: [], ...nowhere(problems.join('; ') || 'could not be read') }];
  const [idle, members] = membersOf(view, peer);
  const judge = (mode: MtlsMode, wrong: readonly string[]): Verdict => {
    if (idle !== undefined) return nowhere(idle);
    const differs = [...wrong, ...(mode === 'DISABLE' ? [DISABLED] : [])];
    const everywhere = peer.namespace === rootNamespace;
    const none = view.members(everywhere ? undefined : peer.namespace).length > 0 ? NONE_COUNTS : NO_PODS(everywhere);
    return atNode(members, none, differs, CONSEQUENCES[mode]);
  };
  const inherited = view.inputs.peers.namespaceMode(peer.namespace);
  const about = (part: string): string[] => problems.filter((problem) => problem.startsWith(part));
  const lines: RuleCoverage[] = [];
  if (at(object, 'spec', 'mtls') !== undefined || peer.ports.size === 0) {
    const mode = effectiveMode(peer.mode, inherited);
    const verdict = judge(mode, about('mtls mode'));
    const because = peer.mode === 'UNSET' ? `UNSET: ${mode} is inherited; ${verdict.because}` : verdict.because;
    lines.push({ rule: 'mtls', services: [], ...verdict, because });
  }
  for (const [port, mode] of peer.ports) {
    const verdict = peer.selector ? judge(effectiveMode(mode, peer.mode, inherited), about('mtls mode')) : nowhere(NO_SELECTOR);
    lines.push({ rule: `portLevelMtls[${port}]`, services: [], ...verdict });
  }
  for (const problem of about('portLevelMtls: ')) lines.push({ rule: 'portLevelMtls', services: [], ...nowhere(problem) });
  return lines;
};

const NONE_COUNTS = 'every pod that it could be for has a more specific mode';
const NO_SELECTOR = 'portLevelMtls has no effect without a selector';

/** Whose mode it says: pods for which nothing more specific and nothing older counts; or why it says nobody's. */
function membersOf(view: CoverageView, peer: PeerAuthentication): readonly [idle: string | undefined, members: readonly Member[]] {
  const { config, inputs } = view;
  const everywhere = peer.namespace === config.rootNamespace;
  if (everywhere && peer.selector) return [`a selector has no effect in the root namespace ${config.rootNamespace}`, []];
  if (peer.selector) {
    const found = selected(view.members(peer.namespace), peer.selector);
    if (found.length === 0) return [`no pod has ${labelText(peer.selector)}`, []];
    const counting = found.filter(({ namespace, labels }) => inputs.peers.selecting(namespace, labels)?.key === peer.key);
    return [counting.length === 0 ? 'for all that it selects an older object counts' : undefined, counting];
  }
  const first = inputs.peers.ofNamespace(peer.namespace);
  if (first && first.key !== peer.key) return [`${first.key} is older and counts`, []];
  const modes = everywhere ? (namespace: string) => namespacePeer(view, namespace) : () => undefined;
  const members = view
    .members(everywhere ? undefined : peer.namespace)
    .filter(
      ({ namespace, labels }) => (inputs.peers.selecting(namespace, labels)?.mode ?? 'UNSET') === 'UNSET' && modes(namespace) === undefined,
    );
  return [undefined, members];
}

/** The object that says a namespace's mode before the mesh's does. */
function namespacePeer({ config, inputs }: CoverageView, namespace: string): PeerAuthentication | undefined {
  if (namespace === config.rootNamespace) return undefined;
  const own = inputs.peers.ofNamespace(namespace);
  return own?.mode === 'UNSET' ? undefined : own;
}

/** `warren.dev/require-waypoint` of a pod or a namespace. */
export const requiredWaypointRules: Judge = (view, object) => {
  const meta = readMeta(object);
  if (meta?.annotations[names.REQUIRE_WAYPOINT] === undefined) return [];
  const problems: string[] = [];
  const words = readWaypointWords(meta.annotations, (problem) => problems.push(problem));
  if (words.required === false) return [];
  const isNamespace = meta.namespace === '';
  const silent = { required: undefined, exceptPorts: [] };
  const members = view.members(isNamespace ? meta.name : meta.namespace).filter(({ key }) => {
    if (!isNamespace) return key === `${meta.namespace}/${meta.name}`;
    const own = view.inputs.pods.get(key)?.waypointWords ?? silent;
    return requiredWaypoint(own, words) !== undefined;
  });
  const ports = words.exceptPorts.length === 0 ? '' : `, but on port ${words.exceptPorts.join(', ')}`;
  const verdict = atNode(members, 'no pod is there that it is for', problems, `who dials them past a waypoint is refused${ports}`);
  return [{ rule: `annotation ${names.REQUIRE_WAYPOINT}`, services: [], ...verdict }];
};
