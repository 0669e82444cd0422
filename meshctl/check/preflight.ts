/**
 * What can be known before anything is changed: whether this cluster can take the mesh, whether whoever asks may install it, and what is in
 * the way. Pure: of what observe.ts read, and of the objects that are to be installed.
 */
import type { KubeObject } from '../../common/client/kube-api.ts';
import { DEFINITION, INSTALLATION, titleOf } from '../install/kinds.ts';
import { plural } from '../terminal.ts';
import { type Finding, failure, ok, warning } from './finding.ts';
import { networkPolicies } from './network-policies.ts';

export interface Denied {
  readonly verb: string;
  readonly resource: string;
  /** Empty for the whole cluster. */
  readonly namespace: string;
}

export interface PreflightFacts {
  /** Of the control plane to be. */
  readonly namespace: string;
  readonly server: { readonly major: string; readonly minor: string; readonly gitVersion: string };
  readonly denied: readonly Denied[];
  readonly namespaceObject: KubeObject | undefined;
  /** CustomResourceDefinitions of Istio's groups and the Gateway API's. */
  readonly definitions: readonly KubeObject[];
  /** Deployments and DaemonSets of all namespaces that are, or may be, parts of a mesh. */
  readonly meshes: readonly KubeObject[];
  readonly webhooks: readonly KubeObject[];
  readonly nodes: readonly KubeObject[];
  /** DaemonSets of the cluster itself: they show where its CNI files are. */
  readonly daemonSets: readonly KubeObject[];
  readonly pods: readonly KubeObject[];
  readonly networkPolicies: readonly KubeObject[];
  /** What could not be read, and why. */
  readonly unread: readonly string[];
  /** What is to be installed. */
  readonly objects: readonly KubeObject[];
}

const OLDEST_MINOR = 31;
const GATEWAY_API = 'gateway.networking.k8s.io';
export const GATEWAY_API_COMMAND =
  'kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.4.0/standard-install.yaml';

export function preflight(facts: PreflightFacts): Finding[] {
  return [
    ...versions(facts),
    ...permissions(facts),
    ...gatewayApi(facts),
    ...istioKinds(facts),
    ...foreignMeshes(facts),
    ...leaving(facts),
    ...podSecurity(facts),
    ...cniFolders(facts),
    ...mandatoryAccess(facts),
    ...architectures(facts),
    ...networkPolicies(facts),
    ...facts.unread.map((what) => warning('reading', what, 'what depends on it was not checked')),
  ];
}

function versions({ server, nodes }: PreflightFacts): Finding[] {
  const minor = Number(/^\d+/.exec(server.minor)?.[0] ?? Number.NaN);
  const version = server.gitVersion || 'of no version';
  const found: Finding[] = [];
  if (server.major !== '1' || !(minor >= OLDEST_MINOR))
    found.push(failure('version', `Kubernetes ${version} is older than 1.${OLDEST_MINOR}`, 'upgrade the cluster'));
  else found.push(ok('version', `Kubernetes ${version}`));
  const old = nodes.filter((node) => Number(/^v1\.(\d+)/.exec(nodeInfo(node).kubeletVersion ?? '')?.[1] ?? OLDEST_MINOR) < OLDEST_MINOR);
  if (old.length > 0) found.push(warning('version', `the kubelet is older than 1.${OLDEST_MINOR} on ${names(old)}`, 'upgrade these nodes'));
  return found;
}

function permissions({ denied }: PreflightFacts): Finding[] {
  if (denied.length === 0) return [ok('permissions', 'all that an installation needs')];
  const what = denied.slice(0, 4).map(({ verb, resource, namespace }) => `${verb} ${resource}${namespace && ` in ${namespace}`}`);
  const more = denied.length > what.length ? ` and ${denied.length - what.length} more` : '';
  return [
    failure('permissions', `you may not ${what.join(', ')}${more}`, 'use an account that is bound to cluster-admin (--context NAME)'),
  ];
}

function gatewayApi({ definitions }: PreflightFacts): Finding[] {
  const needed = ['gatewayclasses', 'gateways', 'httproutes'];
  const lacking = needed.filter((plural) => !serves(definitions, `${plural}.${GATEWAY_API}`, 'v1'));
  const bundle = definitions.map(({ metadata }) => metadata.annotations?.[`${GATEWAY_API}/bundle-version`]).find((version) => version);
  if (lacking.length === 0) return [ok('Gateway API', bundle ?? 'its definitions are there')];
  const old = lacking.length < needed.length || bundle !== undefined;
  return [
    warning(
      'Gateway API',
      old
        ? `${bundle ?? 'its definitions'} does not serve v1 of ${lacking.join(', ')}: no waypoints`
        : 'its definitions are missing: no waypoints',
      GATEWAY_API_COMMAND,
    ),
  ];
}

function serves(definitions: readonly KubeObject[], name: string, version: string): boolean {
  const found = definitions.find(({ metadata }) => metadata.name === name);
  const { versions: served = [] } = (found?.spec ?? {}) as { versions?: readonly { name: string; served: boolean }[] };
  return served.some((each) => each.name === version && each.served);
}

function istioKinds({ definitions }: PreflightFacts): Finding[] {
  const istio = definitions.filter(({ metadata }) => /\.istio\.io$/.test(metadata.name ?? ''));
  const theirs = istio.filter(({ metadata }) => metadata.labels?.[DEFINITION] === undefined);
  if (theirs.length > 0) return [ok("Istio's kinds", `${plural(theirs.length, 'definition')} of Istio's own, which stay as they are`)];
  return [ok("Istio's kinds", istio.length > 0 ? 'defined by Warren' : 'not defined yet: Warren brings small definitions')];
}

/** A mesh of somebody else's: two of them on one node take each other's pods. */
function foreignMeshes({ meshes, webhooks, objects, namespace }: PreflightFacts): Finding[] {
  const found: Finding[] = [];
  for (const object of meshes) {
    const { labels = {}, namespace: where = '' } = object.metadata;
    const installation = labels[INSTALLATION];
    const piece = pieceOf(object);
    if (!piece || !objects.some((each) => pieceOf(each)?.name === piece.name)) continue;
    const title = titleOf(object);
    if (installation === undefined) {
      const by = labels['app.kubernetes.io/managed-by'] ?? labels.release;
      found.push(
        failure(
          'other meshes',
          `Istio's ${piece.name} is installed already (${title}${by ? `, by ${by}` : ''})`,
          `remove it (istioctl uninstall --purge, or helm uninstall), or keep it and leave ours out: --set ${piece.value}.enabled=false`,
        ),
      );
    } else if (installation !== namespace) {
      found.push(
        failure('other meshes', `Warren is installed in namespace ${installation} already (${title} in ${where})`, `-i ${installation}`),
      );
    }
  }
  const injectors = webhooks.filter(({ metadata }) => /^istio-sidecar-injector/.test(metadata.name ?? ''));
  if (injectors.length > 0)
    found.push(
      warning(
        'other meshes',
        `Istio's sidecar injector is there (${injectors.map(({ metadata }) => metadata.name).join(', ')}): pods with a sidecar are not enrolled`,
        'remove it when no namespace needs it any more',
      ),
    );
  return found.length > 0 ? found : [ok('other meshes', 'none')];
}

const PIECES = [
  { name: 'istiod', value: 'istiod', is: ({ app, istio }: Labels) => app === 'istiod' || istio === 'pilot' },
  { name: 'node agent', value: 'cni', is: (labels: Labels) => labels['k8s-app'] === 'istio-cni-node' || labels.app === 'istio-cni-node' },
  { name: 'ztunnel', value: 'ztunnel', is: ({ app }: Labels) => app === 'ztunnel' },
] as const;
type Labels = Readonly<Record<string, string>>;

function pieceOf({ kind, metadata }: KubeObject): (typeof PIECES)[number] | undefined {
  if (kind !== 'Deployment' && kind !== 'DaemonSet') return undefined;
  return PIECES.find(({ is }) => is(metadata.labels ?? {}));
}

/** Of an installation before: nothing can be made in it any more. */
function leaving({ namespaceObject, namespace }: PreflightFacts): Finding[] {
  if (namespaceObject?.metadata.deletionTimestamp === undefined) return [];
  return [failure('namespace', `${namespace} is being deleted`, `wait until it is gone: kubectl wait --for=delete namespace/${namespace}`)];
}

/** PodSecurity of a namespace that Helm's users, or somebody before us, have labelled. */
function podSecurity({ namespaceObject, objects, namespace }: PreflightFacts): Finding[] {
  const level = namespaceObject?.metadata.labels?.['pod-security.kubernetes.io/enforce'];
  const ours = objects.some(({ kind, metadata }) => kind === 'Namespace' && metadata.name === namespace);
  if (level === undefined || level === 'privileged' || ours) return [];
  return [
    failure(
      'pod security',
      `namespace ${namespace} enforces ${level}, which refuses ztunnel and the node agent`,
      `kubectl label namespace ${namespace} pod-security.kubernetes.io/enforce=privileged --overwrite`,
    ),
  ];
}

interface NodeInfo {
  readonly osImage?: string;
  readonly kubeletVersion?: string;
  readonly architecture?: string;
}
const nodeInfo = ({ status }: KubeObject): NodeInfo => ((status ?? {}) as { nodeInfo?: NodeInfo }).nodeInfo ?? {};
const names = (nodes: readonly KubeObject[]): string => {
  const shown = nodes.slice(0, 3).map(({ metadata }) => metadata.name);
  return `${shown.join(', ')}${nodes.length > 3 ? ` and ${nodes.length - 3} more` : ''}`;
};

interface Platform {
  readonly name: string;
  readonly values: string;
  readonly binDir: string;
  readonly confDir: string;
  is(node: KubeObject): boolean;
}

/** Distributions whose nodes keep CNI files elsewhere than in the usual folders. */
const PLATFORMS: readonly Platform[] = [
  {
    name: 'k3s',
    values: 'k3s.yaml',
    binDir: '/var/lib/rancher/k3s/data/cni',
    confDir: '/var/lib/rancher/k3s/agent/etc/cni/net.d',
    is: (node) => /\+k3s/.test(nodeInfo(node).kubeletVersion ?? ''),
  },
  {
    name: 'GKE',
    values: 'gke.yaml',
    binDir: '/home/kubernetes/bin',
    confDir: '/etc/cni/net.d',
    is: (node) =>
      node.metadata.labels?.['cloud.google.com/gke-nodepool'] !== undefined || /-gke\./.test(nodeInfo(node).kubeletVersion ?? ''),
  },
  {
    name: 'OpenShift',
    values: 'openshift.yaml',
    binDir: '/var/lib/cni/bin',
    confDir: '/etc/cni/multus/net.d',
    is: (node) => node.metadata.labels?.['node.openshift.io/os_id'] !== undefined || /CoreOS 4/.test(nodeInfo(node).osImage ?? ''),
  },
];

interface PodSpec {
  readonly volumes?: readonly { readonly name: string; readonly hostPath?: { readonly path: string } }[];
  readonly containers?: readonly { readonly securityContext?: { readonly seLinuxOptions?: { readonly type?: string } } }[];
}
const podSpecOf = ({ spec }: KubeObject): PodSpec => (spec as { template?: { spec?: PodSpec } } | undefined)?.template?.spec ?? {};

const agentOf = (objects: readonly KubeObject[]): KubeObject | undefined =>
  objects.find((object) => object.kind === 'DaemonSet' && pieceOf(object)?.value === 'cni');

function cniFolders({ objects, nodes, daemonSets }: PreflightFacts): Finding[] {
  const agent = agentOf(objects);
  if (!agent) return [];
  const folder = (name: string): string => podSpecOf(agent).volumes?.find((volume) => volume.name === name)?.hostPath?.path ?? '';
  const [binDir, confDir] = [folder('cni-bin-dir'), folder('cni-net-dir')];
  const platform = PLATFORMS.find(({ is }) => nodes.some(is));
  if (platform && (platform.binDir !== binDir || platform.confDir !== confDir))
    return [
      failure(
        'CNI folders',
        `nodes of ${platform.name} keep CNI plugins in ${platform.binDir} and their configuration in ${platform.confDir}, not in ${binDir} and ${confDir}`,
        `--set cni.binDir=${platform.binDir} --set cni.confDir=${platform.confDir}, or the values of platforms/${platform.values}`,
      ),
    ];
  if (platform) return [ok('CNI folders', `those of ${platform.name}`)];
  // The network's own DaemonSet shows where this cluster's files are.
  for (const daemonSet of daemonSets) {
    const paths = (podSpecOf(daemonSet).volumes ?? []).flatMap(({ hostPath }) => (hostPath ? [trimmed(hostPath.path)] : []));
    const bins = paths.filter((path) => /\/cni\/bin$|\/cni-bin$/.test(path));
    const confs = paths.filter((path) => /\/net\.d$/.test(path));
    const wrong = [
      ...(bins.length > 0 && !bins.includes(trimmed(binDir)) ? [`--set cni.binDir=${bins[0]}`] : []),
      ...(confs.length > 0 && !confs.includes(trimmed(confDir)) ? [`--set cni.confDir=${confs[0]}`] : []),
    ];
    if (wrong.length > 0)
      return [
        warning(
          'CNI folders',
          `the network of this cluster (${titleOf(daemonSet)}) has its CNI files in other folders than ours`,
          wrong.join(' '),
        ),
      ];
  }
  return [ok('CNI folders', `${binDir} and ${confDir}; where a node lacks one, its agent does not start and says so`)];
}

const trimmed = (path: string): string => path.replace(/\/+$/, '');

// Distributions that come with SELinux enforcing. That of other nodes cannot be known from here.
const SELINUX =
  /Red Hat Enterprise Linux|CoreOS|Bottlerocket|Fedora|Rocky Linux|AlmaLinux|CentOS|Oracle Linux|SLE Micro|openSUSE MicroOS|Amazon Linux 2023/i;

function mandatoryAccess({ objects, nodes }: PreflightFacts): Finding[] {
  const agent = agentOf(objects);
  if (!agent) return [];
  const confined =
    podSpecOf(agent).containers?.every(({ securityContext }) => securityContext?.seLinuxOptions?.type === undefined) ?? false;
  const enforcing = nodes.filter((node) => SELINUX.test(nodeInfo(node).osImage ?? ''));
  if (enforcing.length > 0 && confined) {
    const system = nodeInfo(enforcing[0] ?? { metadata: {} }).osImage;
    const type = /Bottlerocket/i.test(system ?? '') ? 'super_t' : 'spc_t';
    return [
      warning(
        'SELinux',
        `${system} on ${names(enforcing)} comes with SELinux enforcing, which keeps the node agent from pods' network namespaces`,
        `--set seLinuxOptions.type=${type}`,
      ),
    ];
  }
  return [ok('SELinux', enforcing.length > 0 ? 'the options are set' : 'no node whose system enforces it by default')];
}

function architectures({ nodes }: PreflightFacts): Finding[] {
  const strange = nodes.filter((node) => !['amd64', 'arm64', undefined].includes(nodeInfo(node).architecture));
  if (strange.length === 0) return [];
  return [
    warning(
      'nodes',
      `there are no images for ${nodeInfo(strange[0] ?? { metadata: {} }).architecture} (${names(strange)})`,
      'keep ztunnel and cni off by nodeSelector',
    ),
  ];
}
