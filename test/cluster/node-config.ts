/** What a node's programs are told: containerd, the pod network, kubelet, kube-proxy. */
import { DNS_SERVICE_IP, type NodePlan } from '../../playground/network/plan.ts';
import { CONTAINERD_SOCKET } from './paths.ts';
import { PAUSE_IMAGE } from './pause-image.ts';

/** `restrict_oom_score_adj`: root of a container or a small machine may not lower it, and a sandbox would fail to start. */
export const containerdConfig = (): string => `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "${CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`;

/** Every pod has a cable to its node, which routes: no bridge, so that all that pods say to each other passes the node's rules. */
export const podNetwork = ({ podCidrs }: NodePlan): string =>
  JSON.stringify(
    {
      cniVersion: '1.0.0',
      name: 'pods',
      plugins: [
        {
          type: 'ptp',
          ipam: { type: 'host-local', ranges: [[{ subnet: podCidrs.v4 }]], routes: [{ dst: '0.0.0.0/0' }] },
        },
        { type: 'portmap', capabilities: { portMappings: true } },
      ],
    },
    undefined,
    2,
  );

export const kubeletConfig = (clientCa: string): object => ({
  apiVersion: 'kubelet.config.k8s.io/v1beta1',
  kind: 'KubeletConfiguration',
  authentication: { anonymous: { enabled: false }, webhook: { enabled: true }, x509: { clientCAFile: clientCa } },
  authorization: { mode: 'Webhook' },
  containerRuntimeEndpoint: `unix://${CONTAINERD_SOCKET}`,
  cgroupDriver: 'cgroupfs',
  failCgroupV1: false,
  failSwapOn: false,
  clusterDNS: [DNS_SERVICE_IP],
  clusterDomain: 'cluster.local',
  resolvConf: '/etc/resolv.conf',
  makeIPTablesUtilChains: false,
  // Disks and memory are the machine's; a full one is not this node's to tidy up.
  evictionHard: {
    'memory.available': '0%',
    'nodefs.available': '0%',
    'nodefs.inodesFree': '0%',
    'imagefs.available': '0%',
    'imagefs.inodesFree': '0%',
  },
  imageGCHighThresholdPercent: 100,
  imageGCLowThresholdPercent: 99,
  // A test that changes a ConfigMap does not wait a minute for it.
  syncFrequency: '10s',
  configMapAndSecretChangeDetectionStrategy: 'Watch',
  nodeStatusReportFrequency: '30s',
  registryPullQPS: 0,
  maxPods: 110,
});

export const kubeProxyConfig = (kubeconfig: string, node: string, podCidr: string): object => ({
  apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
  kind: 'KubeProxyConfiguration',
  clientConnection: { kubeconfig },
  hostnameOverride: node,
  mode: 'nftables',
  clusterCIDR: podCidr,
  nftables: { minSyncPeriod: '0s', syncPeriod: '30s' },
  // These are the machine's, and have no namespace.
  conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
});
