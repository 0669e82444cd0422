import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type KubeApi, KubeApiError, type KubeObject } from '../../../common/client/kube-api.ts';
import { findingLine } from '../../../meshctl/check/finding.ts';
import { conflictsOf } from '../../../meshctl/install/apply.ts';
import { createProgress } from '../../../meshctl/install/progress.ts';
import { creationTrouble, podTrouble, rolloutOf } from '../../../meshctl/install/rollout.ts';
import { lastTelling, waitForRollout } from '../../../meshctl/install/wait.ts';
import { hastyClock } from '../../support/cluster-api.ts';

const daemonSet = (status: object, generation = 1): KubeObject => ({
  apiVersion: 'apps/v1',
  kind: 'DaemonSet',
  metadata: { name: 'ztunnel', namespace: 'istio-system', generation },
  spec: { selector: { matchLabels: { app: 'ztunnel' } } },
  status,
});

const counts = { desiredNumberScheduled: 3, updatedNumberScheduled: 3, numberAvailable: 3, observedGeneration: 1 };

test('a DaemonSet has rolled out when every node has an available pod of the newest kind', () => {
  assert.equal(rolloutOf(daemonSet(counts)).done, true);
  assert.deepEqual(rolloutOf(daemonSet({ ...counts, updatedNumberScheduled: 2 })), {
    title: 'DaemonSet istio-system/ztunnel',
    ready: 2,
    wanted: 3,
    done: false,
  });
  assert.equal(rolloutOf(daemonSet({ ...counts, numberAvailable: 1 })).ready, 1);
});

test('a status of before the last change counts for nothing', () => {
  assert.equal(rolloutOf(daemonSet(counts, 2)).done, false);
  assert.equal(rolloutOf(daemonSet({})).done, false);
});

test('a Deployment has rolled out when its old pods are gone too', () => {
  const deployment = (status: object): KubeObject => ({
    kind: 'Deployment',
    metadata: { name: 'istiod', namespace: 'istio-system', generation: 1 },
    spec: { replicas: 2 },
    status: { observedGeneration: 1, ...status },
  });
  assert.equal(rolloutOf(deployment({ replicas: 3, updatedReplicas: 2, availableReplicas: 3 })).done, false);
  assert.equal(rolloutOf(deployment({ replicas: 2, updatedReplicas: 2, availableReplicas: 2 })).done, true);
});

const pod = (status: object): KubeObject => ({
  kind: 'Pod',
  metadata: { name: 'ztunnel-1', namespace: 'istio-system', uid: 'u1' },
  status,
});
const event = (reason: string, message: string): KubeObject => ({
  metadata: {},
  involvedObject: { name: 'ztunnel-1', uid: 'u1' },
  reason,
  message,
});
const container = (state: object, more: object = {}): object => ({
  phase: 'Running',
  containerStatuses: [{ name: 'istio-proxy', image: 'warren/ztunnel:1', state, ...more }],
});
const said = (status: object, events: readonly KubeObject[] = [], logs: Record<string, string> = {}): string | undefined => {
  const found = podTrouble(pod(status), events, new Map(Object.entries(logs)));
  return found && findingLine(found, false).replace('✘ Pod istio-system/ztunnel-1: ', '');
};

for (const [name, status, events, logs, expected] of [
  [
    'an image that cannot be pulled',
    container({ waiting: { reason: 'ErrImagePull', message: 'unauthorized' } }),
    [],
    {},
    'image warren/ztunnel:1 cannot be pulled (ErrImagePull: unauthorized) (check image.hub, image.tag and image.pullSecrets, or load the image onto the nodes)',
  ],
  [
    'an image that may not be pulled and is not there',
    container({ waiting: { reason: 'ErrImageNeverPull' } }),
    [],
    {},
    'image warren/ztunnel:1 cannot be pulled (ErrImageNeverPull) (check image.hub, image.tag and image.pullSecrets, or load the image onto the nodes)',
  ],
  [
    'a container that crashes, with the last thing it said',
    container(
      { waiting: { reason: 'CrashLoopBackOff' } },
      { restartCount: 4, lastState: { terminated: { exitCode: 2, reason: 'Error' } } },
    ),
    [],
    { 'istio-proxy': 'NODE_NAME is not set' },
    'istio-proxy ended 4 times, last with exit code 2: NODE_NAME is not set (kubectl logs -n istio-system ztunnel-1 -c istio-proxy --previous)',
  ],
  [
    'a container that SELinux or AppArmor keeps from its work',
    container({ waiting: { reason: 'CrashLoopBackOff' } }, { restartCount: 1, lastState: { terminated: { exitCode: 1 } } }),
    [],
    { 'istio-proxy': 'open /proc/1/ns/net: EACCES: permission denied' },
    'istio-proxy ended 1 time, last with exit code 1: open /proc/1/ns/net: EACCES: permission denied (SELinux or AppArmor may be in the way: --set seLinuxOptions.type=spc_t where SELinux enforces; kubectl logs -n istio-system ztunnel-1 -c istio-proxy --previous)',
  ],
  [
    'a container without memory',
    container(
      { waiting: { reason: 'CrashLoopBackOff' } },
      { restartCount: 2, lastState: { terminated: { exitCode: 137, reason: 'OOMKilled' } } },
    ),
    [],
    {},
    'istio-proxy ran out of memory (raise resources.limits.memory)',
  ],
  [
    'a pod that fits on no node',
    {
      phase: 'Pending',
      conditions: [
        { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: '0/3 nodes are available: 3 Insufficient memory.' },
      ],
    },
    [],
    {},
    'cannot be scheduled: 0/3 nodes are available: 3 Insufficient memory. (free resources, add nodes, or change resources, nodeSelector or tolerations)',
  ],
  [
    'a CNI folder that is not there',
    { phase: 'Pending', containerStatuses: [{ name: 'c', image: 'i', state: { waiting: { reason: 'ContainerCreating' } } }] },
    [
      event(
        'FailedMount',
        'MountVolume.SetUp failed for volume "cni-bin-dir" : hostPath type check failed: /opt/cni/bin is not a directory',
      ),
    ],
    {},
    'MountVolume.SetUp failed for volume "cni-bin-dir" : hostPath type check failed: /opt/cni/bin is not a directory (this node keeps its CNI files elsewhere: set cni.binDir and cni.confDir (manifests/charts/warren/platforms has values for k3s, GKE, OpenShift))',
  ],
  [
    'a pod that waits for the root certificate',
    { phase: 'Pending' },
    [event('FailedMount', 'MountVolume.SetUp failed for volume "istiod-ca-cert" : configmap "istio-ca-root-cert" not found')],
    {},
    'MountVolume.SetUp failed for volume "istiod-ca-cert" : configmap "istio-ca-root-cert" not found (istiod writes it once it is ready: look at istiod first)',
  ],
  [
    'a container that runs and is not ready, with what its probe said',
    container({ running: {} }, { ready: false }),
    [event('Unhealthy', 'Readiness probe failed: HTTP probe failed with statuscode: 503')],
    {},
    'istio-proxy runs and is not ready: Readiness probe failed: HTTP probe failed with statuscode: 503 (kubectl logs -n istio-system ztunnel-1 -c istio-proxy)',
  ],
  [
    'a container that refers to what is not there',
    container({ waiting: { reason: 'CreateContainerConfigError', message: 'configmap "x" not found' } }),
    [],
    {},
    'istio-proxy cannot be started (CreateContainerConfigError: configmap "x" not found) (kubectl describe pod says more)',
  ],
] as const) {
  test(`${name} is named, with the mend`, () => {
    assert.equal(said(status, events, logs), expected);
  });
}

test('of several things that hold a pod up, the one that does not pass by itself is said, whatever came first', () => {
  const folder = event(
    'FailedMount',
    'MountVolume.SetUp failed for volume "cni-bin-dir" : hostPath type check failed: /nope is not a directory',
  );
  const cache = event('FailedMount', 'MountVolume.SetUp failed for volume "x" : failed to sync configmap cache: timed out');
  for (const events of [
    [folder, { ...cache, lastTimestamp: '2026-01-01T00:00:09Z' }],
    [cache, folder],
  ])
    assert.match(said({ phase: 'Pending' }, events) ?? '', /^MountVolume.SetUp failed for volume "cni-bin-dir"/);
  const older = { ...event('Unhealthy', 'before'), lastTimestamp: '2026-01-01T00:00:01Z' };
  const newer = { ...event('Unhealthy', 'after'), lastTimestamp: '2026-01-01T00:00:02Z' };
  assert.match(said(container({ running: {} }, { ready: false }), [newer, older]) ?? '', /is not ready: after/);
});

test('a ready pod, and one that is just starting, are no trouble', () => {
  assert.equal(said(container({ running: {} }, { ready: true })), undefined);
  assert.equal(
    said({ phase: 'Pending', containerStatuses: [{ name: 'c', image: 'i', state: { waiting: { reason: 'ContainerCreating' } } }] }),
    undefined,
  );
});

for (const [message, mend] of [
  [
    'pods "ztunnel-" is forbidden: violates PodSecurity "baseline:latest": hostPath volumes',
    /pod-security\.kubernetes\.io\/enforce=privileged/,
  ],
  ['pods "ztunnel-x" is forbidden: exceeded quota: team', /raise the quota/],
  [
    'pods "ztunnel-x" is forbidden: unable to validate against any security context constraint',
    /openshift\.securityContextConstraints=true/,
  ],
  ['admission webhook "policy.example.com" denied the request', /admission plugin that said so/],
] as const) {
  test(`pods that are not created say why: ${message.slice(0, 60)}`, () => {
    const found = creationTrouble(daemonSet({}), [{ metadata: {}, involvedObject: { name: 'ztunnel' }, reason: 'FailedCreate', message }]);
    assert.equal(found[0]?.message, `its pods are not created: ${message}`);
    assert.match(found[0]?.mend ?? '', mend);
  });
}

test('the last line that says something is found among a stack and blank lines', () => {
  assert.equal(
    lastTelling(
      '2026-01-01T00:00:00Z info starting\nError: port 15020 is taken\n    at listen (x.js:1)\n  code: 1\n}\n\nNode.js v26.10.0\n',
    ),
    'Error: port 15020 is taken',
  );
  assert.equal(
    lastTelling('2026-01-01T00:00:00Z error cni the node agent could not start'),
    '2026-01-01T00:00:00Z error cni the node agent could not start',
  );
  assert.equal(lastTelling('\n'), undefined);
  assert.equal(lastTelling('unable to retrieve container logs for containerd://2e82'), undefined);
});

test('conflicts of a server-side apply are read from its message, one and several', () => {
  const error = (message: string): KubeApiError => new KubeApiError(409, 'Conflict', `PATCH /x: 409 ${message}`);
  assert.deepEqual(conflictsOf(error('Apply failed with 1 conflict: conflict with "kubectl-edit" using apps/v1: .spec.replicas')), [
    { manager: 'kubectl-edit', field: '.spec.replicas' },
  ]);
  const several = error(
    'Apply failed with 3 conflicts: conflicts with "argocd" using apps/v1 at 2026-01-02T03:04:05Z:\n- .spec.replicas\n- .spec.template.spec.containers[name="discovery"].image\nconflict with "hpa" with subresource "scale" using apps/v1: .spec.paused',
  );
  assert.deepEqual(conflictsOf(several), [
    { manager: 'argocd', field: '.spec.replicas' },
    { manager: 'argocd', field: '.spec.template.spec.containers[name="discovery"].image' },
    { manager: 'hpa', field: '.spec.paused' },
  ]);
  assert.deepEqual(conflictsOf(new KubeApiError(409, 'AlreadyExists', 'exists')), []);
});

test('trouble that mends itself while it is hoped for does not end the wait', async () => {
  let asked = 0;
  const waiting = { reason: 'ImagePullBackOff', message: 'back-off' };
  const api = {
    get: async () =>
      ++asked < 20
        ? daemonSet({ desiredNumberScheduled: 1, updatedNumberScheduled: 0, numberAvailable: 0, observedGeneration: 1 })
        : daemonSet({ ...counts }),
    list: async (path: string) => (path.endsWith('/pods') ? [pod(container({ waiting }))] : []),
    getText: async () => '',
  } as unknown as KubeApi;
  const shown: string[] = [];
  const progress = createProgress({ write: (line: string) => shown.push(line) });
  const findings = await waitForRollout([daemonSet({})], { api, clock: hastyClock(), timeoutMs: 600_000, progress, colour: false });
  assert.deepEqual(findings, []);
  assert.equal(shown.filter((line) => line.includes('cannot be pulled')).length, 1);
});

test('progress without a terminal is a line for each change; on a terminal the block is painted anew', () => {
  const plain: string[] = [];
  const lines = createProgress({ write: (text: string) => plain.push(text) });
  lines.show(['a: 0 of 2', 'b: 0 of 1']);
  lines.show(['a: 1 of 2', 'b: 0 of 1']);
  lines.note('done');
  assert.deepEqual(plain, ['a: 0 of 2\n', 'b: 0 of 1\n', 'a: 1 of 2\n', 'done\n']);
  const painted: string[] = [];
  const block = createProgress({ isTTY: true, columns: 20, write: (text: string) => painted.push(text) });
  block.show(['a: 0 of 2', 'b: a line that is longer than the terminal']);
  block.show([]);
  assert.deepEqual(painted, ['a: 0 of 2\n', 'b: a line that is l\n', '\x1b[2A\x1b[J']);
});
