/** The playground as its user meets it: real kubectl, real namespaces, programs of the host. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { runProgram } from '../support/kube-commands.ts';
import { startPlayground, withoutPlayground } from '../support/playground.ts';
import { clientPod, web } from './playground-pods.ts';

const skip = withoutPlayground ?? false;

test('a cluster of two nodes', { skip, timeout: 240_000 }, async (t) => {
  const cluster = await startPlayground(t);

  await t.test('has nodes that are ready, with addresses of both families', async () => {
    const nodes = JSON.parse(await cluster.kubectl('get', 'nodes', '-o', 'json')) as {
      items: { metadata: { name: string }; spec: { podCIDRs: string[] } }[];
    };
    assert.deepEqual(
      nodes.items.map(({ metadata }) => metadata.name),
      ['node1', 'node2'],
    );
    assert.deepEqual(nodes.items[1]?.spec.podCIDRs, ['10.244.2.0/24', 'fd00:10:244:2::/64']);
    await cluster.kubectl('wait', '--for=condition=Ready', 'node', '--all', '--timeout=20s');
  });

  await t.test('serves a Service from both nodes to pods of both nodes, by name, over IPv4 and IPv6', async () => {
    await cluster.apply(`${clientPod('client1', 'node1')}${clientPod('client2', 'node2')}${web()}`);
    await cluster.podsReady('default');
    const nodesOfWeb = (await cluster.kubectl('get', 'pods', '-l', 'app=web', '-o', 'jsonpath={.items[*].spec.nodeName}'))
      .split(' ')
      .sort();
    assert.deepEqual(nodesOfWeb, ['node1', 'node2'], 'replicas spread over the nodes');
    const ips = JSON.parse(await cluster.kubectl('get', 'service', 'web', '-o', 'jsonpath={.spec.clusterIPs}')) as string[];
    for (const client of ['client1', 'client2']) {
      for (const host of ['web', 'web.default.svc.cluster.local', ips[0], `[${ips[1]}]`]) {
        const answer = await cluster.client('default', client, `http://${host}/`, '--count=20');
        const servers = new Set([...answer.matchAll(/Hostname=(.*)/g)].map((match) => match[1]));
        assert.equal(servers.size, 2, `${client} reaches both replicas by ${host}`);
      }
    }
    const seen = await cluster.client('default', 'client1', `http://[${ips[1]}]/`);
    const own = (await cluster.kubectl('get', 'pod', 'client1', '-o', 'jsonpath={.status.podIPs[1].ip}')).trim();
    assert.match(seen, new RegExp(`IP=${own}$`, 'm'), "the server sees the client's own address");
  });

  await t.test('lets a pod reach itself through its Service', async () => {
    await cluster.kubectl('scale', 'deployment/web', '--replicas=1');
    await cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=45s');
    await cluster.eventually(
      'one endpoint is left',
      async () => (await cluster.kubectl('get', 'pods', '-l', 'app=web', '-o', 'name')).trim().split('\n').length === 1,
    );
    for (const url of ['http://web/', 'tcp://web:9090']) assert.match(await cluster.client('default', 'deploy/web', url), /Hostname=web-/);
    await cluster.kubectl('scale', 'deployment/web', '--replicas=2');
    await cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=45s');
  });

  await t.test('refuses connections to a Service without endpoints, at once', async () => {
    await cluster.apply(
      '{ apiVersion: v1, kind: Service, metadata: { name: empty }, spec: { selector: { app: nobody }, ports: [{ port: 80 }] } }',
    );
    const { code, stderr } = await cluster.exec('default', 'client1', 'client', 'http://empty/');
    assert.equal(code, 1);
    assert.match(stderr, /ECONNREFUSED/);
  });

  await t.test('answers DNS questions about headless, external and unknown names', async () => {
    await cluster.apply(`
{ apiVersion: v1, kind: Service, metadata: { name: each }, spec: { clusterIP: None, selector: { app: web }, ports: [{ name: http, port: 8080 }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: alias }, spec: { type: ExternalName, externalName: web.default.svc.cluster.local } }
`);
    const podIps = async (): Promise<string[]> =>
      (await cluster.kubectl('get', 'pods', '-l', 'app=web', '-o', 'jsonpath={.items[*].status.podIP}')).split(' ').sort();
    await cluster.eventually('each has both pods', async () => {
      const { stdout } = await cluster.exec('default', 'client1', 'getent', 'ahostsv4', 'each');
      const found = [
        ...new Set(
          stdout
            .split('\n')
            .filter(Boolean)
            .map((line) => line.split(' ')[0] ?? ''),
        ),
      ].sort();
      return JSON.stringify(found) === JSON.stringify(await podIps());
    });
    assert.match(await cluster.client('default', 'client1', 'http://alias/'), /StatusCode=200/);
    const unknown = await cluster.exec('default', 'client1', 'client', 'http://nothing.example/');
    assert.match(unknown.stderr, /ENOTFOUND/);
  });

  await t.test('rolls a Deployment over without a failed request, and back', async () => {
    const asking = cluster.exec('default', 'client1', 'sh', '-c', 'for i in $(seq 25); do client http://web/ --count=4 || exit 1; done');
    await cluster.kubectl('set', 'env', 'deployment/web', 'ROLLED=yes');
    await cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=45s');
    const { code, stderr } = await asking;
    assert.equal(code, 0, stderr);
    assert.match(await cluster.kubectl('rollout', 'history', 'deployment/web'), /^2 /m);
    await cluster.kubectl('rollout', 'undo', 'deployment/web');
    await cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=45s');
    assert.doesNotMatch(await cluster.kubectl('get', 'deployment', 'web', '-o', 'yaml'), /ROLLED/);
    await cluster.kubectl('rollout', 'restart', 'deployment/web');
    await cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=45s');
  });

  await t.test('restarts what crashes or fails its liveness probe, and says so', async () => {
    await cluster.apply(`
apiVersion: v1
kind: Pod
metadata: { name: sick }
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: crash
      image: host
      command: [sh, -c, "echo parent $PPID; exit 7"]
    - name: hang
      image: host
      command: [sh, -c, "trap 'exit 0' TERM; touch /alive; sleep 0.5; rm /alive; while :; do sleep 0.1; done"]
      livenessProbe: { exec: { command: [test, -e, /alive] }, periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 1 }
`);
    await cluster.eventually('both containers were restarted', async () => {
      const counts = await cluster.kubectl('get', 'pod', 'sick', '-o', 'jsonpath={.status.containerStatuses[*].restartCount}');
      return counts.split(' ').every((count) => Number(count) > 0);
    });
    await cluster.eventually('the crashing one waits in its back-off', async () =>
      (await cluster.kubectl('get', 'pod', 'sick')).includes('CrashLoopBackOff'),
    );
    const crash = JSON.parse(
      await cluster.kubectl('get', 'pod', 'sick', '-o', 'jsonpath={.status.containerStatuses[0].lastState.terminated}'),
    ) as { exitCode: number };
    assert.equal(crash.exitCode, 7);
    assert.equal(
      await cluster.kubectl('logs', 'sick', '-c', 'crash', '--previous'),
      'parent 0\n',
      'the program is process 1 of its namespace',
    );
    const events = await cluster.kubectl('describe', 'pod', 'sick');
    assert.match(events, /Liveness probe failed/);
    assert.match(events, /BackOff.*Back-off restarting failed container crash/);
    await cluster.kubectl('delete', 'pod', 'sick');
  });

  await t.test('ends pods gracefully: preStop, SIGTERM, SIGKILL when the time is over', async () => {
    await cluster.apply(`
apiVersion: v1
kind: Pod
metadata: { name: polite }
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 10
  volumes: [{ name: out, hostPath: { path: /var/lib/test, type: DirectoryOrCreate } }]
  containers:
    - name: c
      image: host
      command: [sh, -c, "trap 'echo term >> /out/log; exit 0' TERM; while :; do sleep 0.05; done"]
      lifecycle: { preStop: { exec: { command: [sh, -c, "echo prestop >> /out/log"] } } }
      volumeMounts: [{ name: out, mountPath: /out }]
---
apiVersion: v1
kind: Pod
metadata: { name: stubborn }
spec:
  terminationGracePeriodSeconds: 1
  containers: [{ name: c, image: host, command: [sh, -c, "trap '' TERM; while :; do sleep 0.05; done"] }]
`);
    await cluster.podsReady('default');
    await cluster.kubectl('delete', 'pod', 'polite');
    assert.equal(cluster.node('node1').run('cat', '/var/lib/test/log'), 'prestop\nterm\n');
    assert.ok(!existsSync('/var/lib/test'), "a node's files are not the machine's");
    const begun = performance.now();
    await cluster.kubectl('delete', 'pod', 'stubborn');
    const tookMs = performance.now() - begun;
    assert.ok(tookMs > 900 && tookMs < 20_000, `SIGKILL after a second, not after ${tookMs} ms`);
  });

  await t.test('gives containers their volumes, environment and files, and keeps them up to date', async () => {
    await cluster.apply(`
{ apiVersion: v1, kind: ConfigMap, metadata: { name: settings }, data: { colour: blue, shape: round } }
---
{ apiVersion: v1, kind: Secret, metadata: { name: hidden }, stringData: { word: sesame } }
---
apiVersion: v1
kind: Pod
metadata: { name: furnished, labels: { team: moles } }
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 0
  initContainers: [{ name: first, image: host, command: [sh, -c, "echo made by init > /shared/file"], volumeMounts: [{ name: shared, mountPath: /shared }] }]
  volumes:
    - { name: shared, emptyDir: {} }
    - { name: settings, configMap: { name: settings } }
    - name: all
      projected:
        sources:
          - secret: { name: hidden }
          - downwardAPI: { items: [{ path: labels, fieldRef: { fieldPath: metadata.labels } }] }
          - serviceAccountToken: { path: token, audience: somebody, expirationSeconds: 3600 }
  containers:
    - name: c
      image: host
      command: [sleep, infinity]
      args: []
      workingDir: /shared
      env:
        - { name: COLOUR, valueFrom: { configMapKeyRef: { name: settings, key: colour } } }
        - { name: WORD, valueFrom: { secretKeyRef: { name: hidden, key: word } } }
        - { name: BOTH, value: "$(COLOUR)-$(WORD)-$$(COLOUR)" }
        - { name: NODE, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }
        - { name: MINE, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
        - { name: CPU, valueFrom: { resourceFieldRef: { resource: limits.cpu, divisor: 1m } } }
      resources: { limits: { cpu: 250m } }
      volumeMounts:
        - { name: shared, mountPath: /shared }
        - { name: settings, mountPath: /settings, readOnly: true }
        - { name: all, mountPath: /all }
        - { name: settings, mountPath: /one, subPath: shape }
`);
    await cluster.podsReady('default');
    const sh = async (script: string): Promise<string> => {
      const { code, stdout, stderr } = await cluster.exec('default', 'furnished', 'sh', '-c', script);
      assert.equal(code, 0, stderr);
      return stdout;
    };
    assert.equal(await sh('cat file; pwd; hostname'), 'made by init\n/shared\nfurnished\n');
    const ip = await cluster.kubectl('get', 'pod', 'furnished', '-o', 'jsonpath={.status.podIP}');
    assert.equal(await sh('echo $BOTH $NODE $MINE $CPU'), `blue-sesame-$(COLOUR) node2 ${ip} 250\n`);
    assert.equal(await sh('cat /settings/shape /all/word /all/labels /one'), 'roundsesameteam="moles"round');
    const claims = JSON.parse(Buffer.from((await sh('cat /all/token')).split('.')[1] ?? '', 'base64url').toString('utf8')) as {
      aud: string[];
    };
    assert.deepEqual(claims.aud, ['somebody']);
    assert.notEqual((await cluster.exec('default', 'furnished', 'sh', '-c', 'echo x > /settings/colour')).code, 0);
    await cluster.kubectl('patch', 'configmap', 'settings', '-p', '{"data":{"shape":"square"}}');
    await cluster.kubectl('label', 'pod', 'furnished', 'team=voles', '--overwrite');
    await cluster.eventually('the files follow', async () => (await sh('cat /settings/shape /all/labels')) === 'squareteam="voles"');
    assert.equal(
      await sh('curl -s --cacert /var/run/secrets/kubernetes.io/serviceaccount/ca.crt https://kubernetes.default.svc/readyz'),
      'ok',
    );
    await cluster.kubectl('delete', 'pod', 'furnished');
  });

  await t.test('keeps a pod waiting, with its reason in the events, until what it refers to is there', async () => {
    await cluster.apply(`
apiVersion: v1
kind: Pod
metadata: { name: waiting }
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{ name: v, configMap: { name: later } }]
  containers: [{ name: c, image: host, command: [sleep, infinity], volumeMounts: [{ name: v, mountPath: /v }] }]
`);
    await cluster.eventually('the event names the ConfigMap', async () =>
      /FailedMount.*configmap "later" not found/.test(await cluster.kubectl('describe', 'pod', 'waiting')),
    );
    await cluster.apply('{ apiVersion: v1, kind: ConfigMap, metadata: { name: later }, data: { a: b } }');
    await cluster.kubectl('wait', '--for=condition=Ready', 'pod/waiting', '--timeout=45s');
    await cluster.kubectl('delete', 'pod', 'waiting');
  });

  await t.test('serves logs -f, exec with standard input, and port-forward', async (t) => {
    await cluster.apply(`
apiVersion: v1
kind: Pod
metadata: { name: talker }
spec:
  terminationGracePeriodSeconds: 0
  containers: [{ name: c, image: host, command: [sh, -c, "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done"] }]
`);
    await cluster.podsReady('default');
    const follow = spawn('kubectl', ['--kubeconfig', cluster.kubeconfig, 'logs', '-f', 'talker']);
    t.after(() => follow.kill());
    let text = '';
    follow.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    await cluster.eventually('five lines came', () => text.includes('line 5\n'));
    assert.match(text, /^line 1\nline 2\n/);
    assert.match(await cluster.kubectl('logs', 'talker', '--tail=1'), /^line \d+\n$/);
    const piped = await runProgram(
      'kubectl',
      ['--kubeconfig', cluster.kubeconfig, 'exec', '-i', 'talker', '--', 'sh', '-c', 'tr a-z A-Z; exit 3'],
      'through\n',
    );
    assert.deepEqual([piped.code, piped.stdout], [3, 'THROUGH\n']);

    const forward = spawn('kubectl', ['--kubeconfig', cluster.kubeconfig, 'port-forward', 'pod/client1', ':8080']);
    t.after(() => forward.kill());
    const port = await new Promise<number>((resolve, reject) => {
      forward.stdout.setEncoding('utf8').on('data', (chunk: string) => {
        const found = /127\.0\.0\.1:(\d+) ->/.exec(chunk);
        if (found) resolve(Number(found[1]));
      });
      forward.once('exit', () => reject(new Error('port-forward ended')));
    });
    const answer = await (await fetch(`http://127.0.0.1:${port}/forwarded`)).text();
    assert.match(answer, /^URL=\/forwarded$/m);
    await cluster.kubectl('delete', 'pod', 'talker');
  });

  await t.test('runs DaemonSets, StatefulSets and Jobs', async () => {
    await cluster.apply(`
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: everywhere }
spec:
  selector: { matchLabels: { app: everywhere } }
  template:
    metadata: { labels: { app: everywhere } }
    spec: { terminationGracePeriodSeconds: 0, containers: [{ name: c, image: host, command: [sleep, infinity] }] }
---
{ apiVersion: v1, kind: Service, metadata: { name: counted }, spec: { clusterIP: None, selector: { app: counted }, ports: [{ name: http, port: 8080 }] } }
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: counted }
spec:
  serviceName: counted
  replicas: 2
  selector: { matchLabels: { app: counted } }
  template:
    metadata: { labels: { app: counted } }
    spec: { terminationGracePeriodSeconds: 1, containers: [{ name: echo, image: warren/echo, startupProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }, readinessProbe: { grpc: { port: 7070 } } }] }
---
apiVersion: batch/v1
kind: Job
metadata: { name: once }
spec:
  template:
    spec: { restartPolicy: Never, containers: [{ name: c, image: host, command: [echo, done] }] }
`);
    await cluster.kubectl('rollout', 'status', 'daemonset/everywhere', '--timeout=45s');
    assert.deepEqual(
      (await cluster.kubectl('get', 'pods', '-l', 'app=everywhere', '-o', 'jsonpath={.items[*].spec.nodeName}')).split(' ').sort(),
      ['node1', 'node2'],
    );
    await cluster.kubectl('rollout', 'status', 'statefulset/counted', '--timeout=45s');
    await cluster.eventually('a member is reached by its own name', async () =>
      (await cluster.exec('default', 'client1', 'client', 'http://counted-1.counted:8080/')).stdout.includes('Hostname=counted-1'),
    );
    await cluster.kubectl('wait', '--for=condition=Complete', 'job/once', '--timeout=45s');
    assert.equal(await cluster.kubectl('logs', 'job/once'), 'done\n');
    await cluster.kubectl('rollout', 'restart', 'daemonset/everywhere');
    await cluster.kubectl('rollout', 'status', 'daemonset/everywhere', '--timeout=45s');
  });

  await t.test('starts no pod on a node whose CNI configuration names an agent that does not answer, and says so', async () => {
    const conflist = '/etc/cni/net.d/00-absent.conflist';
    const plugins = '[{"type": "playground"}, {"type": "istio-cni", "cni_agent_run_dir": "/run/nobody"}]';
    cluster.node('node1').run('sh', '-c', `echo '{"name": "n", "cniVersion": "1.0.0", "plugins": ${plugins}}' > ${conflist}`);
    await cluster.apply(`${clientPod('held', 'node1')}${clientPod('free', 'node2')}`);
    await cluster.kubectl('wait', '--for=condition=Ready', 'pod/free', '--timeout=45s');
    await cluster.eventually('the event names the socket', async () =>
      /FailedCreatePodSandBox.*node agent at \/run\/nobody\/pluginevent\.sock/.test(await cluster.kubectl('describe', 'pod', 'held')),
    );
    assert.match(await cluster.kubectl('get', 'pod', 'held'), /0\/1 +ContainerCreating/);
    cluster.node('node1').run('rm', conflist);
    await cluster.kubectl('wait', '--for=condition=Ready', 'pod/held', '--timeout=45s');
    await cluster.kubectl('delete', 'pod', 'held', 'free');
  });

  await t.test('shows a pod with HostToContainer propagation the network namespaces of pods that come later, and others not', async () => {
    const watcher = (name: string, propagation: string): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name} }
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  volumes: [{ name: netns, hostPath: { path: /var/run/netns } }]
  containers:
    - name: c
      image: host
      command: [sleep, infinity]
      volumeMounts: [{ name: netns, mountPath: /netns, mountPropagation: ${propagation} }]
---
`;
    await cluster.apply(watcher('sees', 'HostToContainer') + watcher('blind', 'None'));
    await cluster.podsReady('default');
    await cluster.apply(clientPod('later', 'node1'));
    await cluster.podsReady('default');
    const uid = await cluster.kubectl('get', 'pod', 'later', '-o', 'jsonpath={.metadata.uid}');
    const kind = async (pod: string): Promise<string> =>
      (await cluster.exec('default', pod, 'stat', '-f', '-c', '%T', `/netns/${uid}`)).stdout.trim();
    assert.deepEqual([await kind('sees'), await kind('blind')], ['nsfs', 'tmpfs']);
    await cluster.kubectl('delete', 'pod', 'sees', 'blind', 'later');
    assert.equal(cluster.node('node1').run('ls', '/var/run/netns').includes(uid), false, 'a namespace goes with its pod');
  });

  await t.test("writes a pod's own network parameters, and refuses others by name", async () => {
    const tuned = (name: string, sysctl: string, value: string): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name} }
spec:
  terminationGracePeriodSeconds: 0
  securityContext: { runAsUser: 1337, sysctls: [{ name: ${sysctl}, value: "${value}" }] }
  containers: [{ name: echo, image: warren/echo, args: ["--port=80"] }]
---
`;
    await cluster.apply(tuned('gateway', 'net.ipv4.ip_unprivileged_port_start', '0') + tuned('greedy', 'kernel.shm_rmid_forced', '1'));
    await cluster.eventually(
      'the gateway answers on port 80',
      async () => (await cluster.exec('default', 'gateway', 'client', 'http://localhost/')).code === 0,
    );
    await cluster.eventually('the other is refused', async () =>
      /FailedCreatePodSandBox.*forbidden sysctl: "kernel\.shm_rmid_forced"/.test(await cluster.kubectl('describe', 'pod', 'greedy')),
    );
    await cluster.kubectl('delete', 'pod', 'gateway', 'greedy');
  });

  await t.test('keeps a read-only root read-only, volumes excepted, and names what cannot start', async () => {
    await cluster.apply(`
apiVersion: v1
kind: Pod
metadata: { name: sealed }
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{ name: tmp, emptyDir: {} }]
  containers:
    - name: c
      image: host
      command: [sleep, infinity]
      securityContext: { readOnlyRootFilesystem: true }
      volumeMounts: [{ name: tmp, mountPath: /tmp }]
---
{ apiVersion: v1, kind: Pod, metadata: { name: nothing }, spec: { terminationGracePeriodSeconds: 0, containers: [{ name: c, image: nginx }] } }
---
{ apiVersion: v1, kind: Pod, metadata: { name: nowhere }, spec: { terminationGracePeriodSeconds: 0, containers: [{ name: c, image: host, command: [sleep, "1"], workingDir: /not/there }] } }
`);
    await cluster.kubectl('wait', '--for=condition=Ready', 'pod/sealed', '--timeout=45s');
    const { stdout } = await cluster.exec(
      'default',
      'sealed',
      'sh',
      '-c',
      'for f in /x /run/x /etc/x /tmp/x; do touch $f 2>/dev/null && echo $f; done; ls /run/netns 2>&1',
    );
    assert.equal(stdout.split('\n')[0], '/tmp/x', 'only the volume takes a file');
    assert.doesNotMatch(stdout, /warren/, "the machine's /run is not the container's");
    await cluster.eventually('both say why', async () => {
      const events = await cluster.kubectl('get', 'events');
      return /image "nginx" is none of the playground's/.test(events) && /can't cd to \/not\/there/.test(events);
    });
    assert.match(await cluster.kubectl('get', 'pods'), /nothing +0\/1 +ErrImagePull[\s\S]*nowhere +0\/1 +RunContainerError/);
    await cluster.kubectl('delete', 'pod', 'sealed', 'nothing', 'nowhere');
  });

  await t.test('drops the capabilities that a pod does not ask for', async () => {
    const bounding = async (pod: string): Promise<string> =>
      (await cluster.exec('default', pod, 'grep', 'CapBnd', '/proc/self/status')).stdout.trim();
    assert.equal(await bounding('client1'), 'CapBnd:\t00000000a80425fb');
    const { stderr } = await cluster.exec('default', 'client1', 'mount', '-t', 'tmpfs', 'x', '/mnt');
    assert.match(stderr, /permission denied/i);
  });
});
