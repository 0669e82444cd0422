import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EnrolmentDecision, Pod } from '../../../cni/enrol/decision.ts';
import { Enrolment } from '../../../cni/enrol/enrolment.ts';
import { type AnnotationChanges, OUTSIDE, PROBLEM, REDIRECTION, type Redirection } from '../../../cni/enrol/pod-voice.ts';
import type { AppliedPolicy } from '../../../cni/enrol/policies.ts';
import type { RuleState } from '../../../cni/namespace/rule-backend.ts';
import type { PodNetns } from '../../../cni/namespace/run-inside.ts';
import { DEFAULT_PROBE_SOURCE } from '../../../cni/rules/constants.ts';
import { silentLog } from '../../../common/base/log.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { type LogEntry, recordingLog } from '../../support/recording-log.ts';
import { tcpSocket } from '../../support/tcp-sockets.ts';

test('a pod comes in without a gap: ztunnel listens, then the rules, then the probes, then everybody is told', async () => {
  const world = setUp();
  await world.upsert({});
  assert.deepEqual(world.done, ['add +10', 'apply', 'probe 10.0.0.1', 'annotate enabled']);
  assert.equal(world.enrolment.enrolled, 1);
});

test('what is so already is not done again', async () => {
  const world = setUp();
  await world.upsert({});
  await world.upsert({ annotation: 'enabled' });
  await world.upsert({ annotation: 'enabled' });
  assert.equal(world.done.length, 4);
});

test('an annotation that somebody changed is put right', async () => {
  const world = setUp();
  await world.upsert({});
  await world.upsert({ annotation: undefined });
  assert.deepEqual(world.done.slice(4), ['annotate enabled']);
});

test('without a ztunnel the pod is captured all the same, says pending, and goes on trying', async () => {
  const world = setUp();
  world.fail.set('add', 'no ztunnel is connected');
  await world.upsert({});
  assert.deepEqual(world.done, ['add +10', 'apply', 'probe 10.0.0.1', 'annotate pending']);
  await world.clock.advance(60_000);
  const tries = world.done.filter((step) => step === 'add +10').length;
  assert.ok(tries > 15 && tries < 40, `${tries} tries in a minute: each 5 s in the end`);
  world.fail.delete('add');
  await world.clock.advance(6_000);
  assert.equal(world.done.at(-1), 'annotate enabled');
  assert.deepEqual(world.warnings, ['no ztunnel is connected']);
});

test('rules that cannot be written are tried again, and the pod does not say that it is enabled', async () => {
  const world = setUp();
  world.fail.set('apply', 'pod shop/orders: nft -f -: exit status 1');
  await world.upsert({});
  await world.clock.advance(1_000);
  assert.equal(world.done.includes('annotate enabled'), false);
  assert.equal(world.enrolment.enrolled, 0);
  world.fail.delete('apply');
  await world.clock.advance(6_000);
  assert.equal(world.done.at(-1), 'annotate enabled');
});

test('an API server that is away does not stop the capture', async () => {
  const world = setUp();
  world.fail.set('annotate', 'connect ECONNREFUSED');
  await world.upsert({});
  assert.equal(world.enrolment.enrolled, 1);
  world.fail.delete('annotate');
  await world.clock.advance(6_000);
  assert.deepEqual(world.done.slice(-1), ['annotate enabled']);
});

test('a pod goes out gently: annotation, probes, neutral rules; two seconds later ztunnel lets go and the rules go', async () => {
  const world = await enrolled();
  world.decision = { enrol: false, selected: false, reason: '' };
  world.enrolment.pokeNamespace('shop');
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['annotate none', 'probe', 'drain']);
  await world.clock.advance(1_999);
  assert.deepEqual(world.take(), []);
  await world.clock.advance(1);
  assert.deepEqual(world.take(), ['del', 'remove', 'close 10']);
});

test('while ztunnel relays something for a pod that left, it keeps the pod, until the deadline', async () => {
  const world = await enrolled();
  world.relayed = 3;
  world.decision = { enrol: false, selected: false, reason: '' };
  world.enrolment.pokeNamespace('shop');
  await world.clock.advance(30_000);
  assert.deepEqual(world.take(), ['annotate none', 'probe', 'drain']);
  assert.equal(world.enrolment.snapshot().length, 1, 'a ztunnel that restarts now is told about it');
  await world.clock.advance(30_000);
  assert.deepEqual(world.take(), ['del', 'remove', 'close 10']);

  const other = await enrolled();
  other.relayed = 1;
  other.decision = { enrol: false, selected: false, reason: '' };
  other.enrolment.pokeNamespace('shop');
  await other.clock.advance(10_000);
  other.relayed = 0;
  await other.clock.advance(5_000);
  assert.deepEqual(other.take().slice(-3), ['del', 'remove', 'close 10']);
});

test('a pod that is labelled again while it leaves gets its rules back, and ztunnel has never lost it', async () => {
  const world = await enrolled();
  world.decision = { enrol: false, selected: false, reason: '' };
  world.enrolment.pokeNamespace('shop');
  await world.clock.advance(500);
  world.take();
  world.decision = { enrol: true };
  world.enrolment.pokeNamespace('shop');
  await world.clock.advance(10_000);
  assert.deepEqual(world.take(), ['apply', 'probe 10.0.0.1', 'annotate enabled']);
});

test('a pod that was deleted is only taken from ztunnel and the probes: its rules went with it', async () => {
  const world = await enrolled();
  world.enrolment.delete(world.pod({}));
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['probe', 'del', 'close 10']);
  assert.equal(world.enrolment.snapshot().length, 0);
});

test('a pod that has finished loses its annotation too, and does not come back', async () => {
  const world = await enrolled();
  await world.upsert({ phase: 'Succeeded', annotation: 'enabled' });
  assert.deepEqual(world.take(), ['probe', 'del', 'close 10', 'annotate none']);
  await world.clock.advance(60_000);
  assert.deepEqual(world.take(), []);
});

test('a pod that never was in the mesh is left alone', async () => {
  const world = setUp();
  world.decision = { enrol: false, selected: false, reason: '' };
  await world.upsert({});
  assert.deepEqual(world.done, []);
});

test('a pod that is selected and may not be enrolled says why, once', async () => {
  const world = setUp();
  world.decision = { enrol: false, selected: true, reason: 'it has a sidecar' };
  await world.upsert({});
  await world.upsert({});
  assert.deepEqual(world.warnings, ['not enrolled: it has a sidecar']);
  assert.deepEqual(world.done, []);
});

test('a pod without an address is waited for; one with an address and without a namespace is a problem', async () => {
  const world = setUp();
  world.namespaces.length = 0;
  await world.upsert({ ip: undefined });
  assert.deepEqual([world.done, world.warnings], [[], []]);
  await world.upsert({});
  assert.deepEqual(world.warnings, ['its network namespace was not found on this node']);
  world.namespaces.push(33);
  await world.clock.advance(6_000);
  assert.equal(world.done.at(-1), 'annotate enabled');
});

test('a CNI call is answered when ztunnel serves the pod, with the addresses of the call', async () => {
  const world = setUp();
  await world.enrolment.join(world.pod({ ip: undefined }), '/ns/20', ['10.0.0.9'], 25_000);
  await world.clock.advance(0);
  assert.deepEqual(world.done, ['add +20', 'apply', 'probe 10.0.0.9', 'annotate enabled']);
});

test('a CNI call that takes too long is answered with the last problem', async () => {
  const world = setUp();
  world.fail.set('add', 'ztunnel refused');
  const joining = world.enrolment.join(world.pod({ ip: undefined }), '/ns/20', [], 2_000);
  const answered = assert.rejects(joining, /ztunnel refused/);
  await world.clock.advance(2_000);
  await answered;
});

test('a CNI call for a pod that leaves the mesh meanwhile lets it start', async () => {
  const world = setUp();
  world.fail.set('add', 'ztunnel refused');
  const joining = world.enrolment.join(world.pod({ ip: undefined }), '/ns/20', [], 60_000);
  await world.clock.advance(100);
  world.decision = { enrol: false, selected: false, reason: '' };
  world.enrolment.pokeNamespace('shop');
  await joining;
});

test('a new sandbox of a pod replaces the old one', async () => {
  const world = await enrolled();
  await world.enrolment.join(world.pod({ annotation: 'enabled' }), '/ns/20', [], 25_000);
  assert.deepEqual(world.take(), ['close 10', 'add +20', 'apply']);
});

test('a CNI call that names the same namespace again changes nothing', async () => {
  const world = await enrolled();
  await world.enrolment.join(world.pod({ annotation: 'enabled' }), '/ns/10', [], 25_000);
  assert.deepEqual(world.take(), ['close 10']);
});

test('a ztunnel that connects later takes the pending pods with its snapshot', async () => {
  const world = setUp();
  world.fail.set('add', 'no ztunnel is connected');
  await world.upsert({});
  world.take();
  const [entry] = world.enrolment.snapshot();
  assert.equal(entry?.netnsFd(), 10);
  entry?.settle(undefined);
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['annotate enabled']);
});

test('a pod that the snapshot could not hand over is pending until it can', async () => {
  const world = await enrolled();
  world.fail.set('add', 'port taken');
  world.enrolment.snapshot()[0]?.settle(new Error('port taken'));
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['add +10', 'annotate pending']);
});

test('after a failover every pod is given to the ztunnel that is left, and nothing else happens', async () => {
  const world = await enrolled();
  world.enrolment.serveAgain();
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['add +10']);
  assert.equal(world.enrolment.enrolled, 1);
});

test('a pod that an earlier agent enrolled is written again without being taken away from anybody', async () => {
  const world = setUp();
  const pod = world.pod({ annotation: 'enabled' });
  world.enrolment.restore(pod, world.netns(10), false);
  assert.equal(world.enrolment.snapshot()[0]?.netnsFd(), 10);
  world.enrolment.upsert(pod);
  await world.clock.advance(0);
  assert.deepEqual(world.done, ['mend', 'probe 10.0.0.1']);
});

test('one whose namespace cannot be found is kept by ztunnel, and added when it is found', async () => {
  const world = setUp();
  const pod = world.pod({ annotation: 'enabled' });
  world.namespaces.length = 0;
  world.enrolment.restore(pod, undefined, false);
  assert.equal(world.enrolment.snapshot()[0]?.netnsFd(), undefined);
  world.namespaces.push(33);
  world.enrolment.upsert(pod);
  await world.clock.advance(0);
  assert.equal(world.done[0], 'add +33');
});

test('a pod that lost its label while no agent ran goes out', async () => {
  const world = setUp();
  world.decision = { enrol: false, selected: false, reason: '' };
  await world.upsert({ annotation: 'enabled' });
  await world.clock.advance(2_000);
  assert.deepEqual(world.done, ['annotate none', 'drain', 'del', 'remove', 'close 10']);
});

test('stopping leaves everything in place', async () => {
  const kept = await enrolled();
  await kept.enrolment.stop(false);
  assert.deepEqual(kept.take(), ['close 10']);
});

test('an agent that is uninstalled lets plaintext in, captures nothing more, and takes its rules out when the last request has its answer', async () => {
  const removed = await enrolled();
  removed.relayed = 1;
  const stopped = removed.enrolment.stop(true);
  await removed.clock.advance(1_999);
  assert.deepEqual(removed.take(), ['apply'], 'pods of other nodes may call in plaintext before it calls them so');
  await removed.clock.advance(4_001);
  assert.deepEqual(removed.take(), ['drain', 'annotate none']);
  removed.relayed = 0;
  await removed.clock.advance(500);
  assert.deepEqual(await stopped, []);
  assert.deepEqual(removed.take(), ['remove', 'del', 'close 10']);
});

test('an agent that is uninstalled does not wait for connections that go on and on', async () => {
  const removed = await enrolled();
  removed.relayed = 1;
  const stopped = removed.enrolment.stop(true);
  await removed.clock.advance(12_000);
  assert.deepEqual(await stopped, []);
  assert.deepEqual(removed.take(), ['apply', 'drain', 'annotate none', 'remove', 'del', 'close 10']);
});

test('a pod that a CNI call brought and that the API never shows is forgotten at the second sweep', async () => {
  const world = await enrolled();
  world.enrolment.sweep(() => false);
  await world.clock.advance(0);
  assert.deepEqual(world.take(), []);
  world.enrolment.sweep(() => false);
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['probe', 'del', 'close 10']);
});

test('annotations that cannot be read are ignored and reported once', async () => {
  const world = setUp();
  const pod = world.pod({});
  const annotated: Pod = {
    ...pod,
    metadata: {
      ...pod.metadata,
      annotations: { 'ambient.istio.io/dns-capture': 'yes', 'istio.io/reroute-virtual-interfaces': 'eth1; drop' },
    },
  };
  world.enrolment.upsert(annotated);
  world.enrolment.upsert(annotated);
  await world.clock.advance(0);
  assert.deepEqual(world.warnings, [
    'istio.io/reroute-virtual-interfaces: "eth1; drop" is no interface name',
    'ambient.istio.io/dns-capture: "yes" is neither true nor false',
  ]);
  assert.equal(world.enrolment.enrolled, 1);
});

test('rules that somebody removed or changed are found at the next look, put right, and told', async () => {
  const world = await enrolled();
  world.enrolment.verify();
  await world.clock.advance(0);
  assert.deepEqual(world.take(), ['mend']);
  assert.equal(world.mended, 0, 'they were as they should be');
  world.found = 'absent';
  world.enrolment.verify();
  await world.clock.advance(0);
  assert.deepEqual([world.take(), world.mended], [['mend'], 1]);
  assert.match(world.warnings.at(-1) ?? '', /its redirection rules had been removed by somebody else, and were written again/);
});

test('a pod that is not in the mesh has no rules to look at', async () => {
  const world = setUp();
  world.decision = { enrol: false, selected: false, reason: '' };
  await world.upsert({});
  world.enrolment.verify();
  await world.clock.advance(0);
  assert.deepEqual(world.done, []);
});

test('connections that were open before are counted on the pod until they have ended, and nothing happens to them', async () => {
  const world = await enrolled({ outside: [1, 2, 3] });
  assert.equal(world.annotations.get(OUTSIDE), undefined, 'one look proves nothing');
  await world.clock.advance(1_000);
  assert.deepEqual([world.annotations.get(OUTSIDE), world.enrolment.outside], ['3', 3]);
  world.outside = [2, 99];
  await world.clock.advance(5_000);
  assert.equal(world.annotations.get(OUTSIDE), '1', 'a connection that is new is none of them');
  world.outside = [];
  await world.clock.advance(5_000);
  assert.deepEqual([world.annotations.has(OUTSIDE), world.enrolment.outside], [false, 0]);
  assert.deepEqual([world.notes.length, world.warnings, world.cut], [1, [], []]);
});

test('a connection that was only being made when the first look came is not counted', async () => {
  const world = await enrolled({ outside: [1] });
  world.outside = [];
  await world.clock.advance(60_000);
  assert.deepEqual([world.annotations.has(OUTSIDE), world.notes], [false, []]);
});

test('once STRICT applies they have a minute, and are cut', async () => {
  const world = await enrolled({ outside: [1, 2] });
  await world.clock.advance(100_000);
  world.policy = { kind: 'PeerAuthentication', policy: 'shop/default' };
  await world.clock.advance(60_000);
  assert.deepEqual(world.cut, [], 'the minute began when the agent saw it');
  await world.clock.advance(5_000);
  assert.deepEqual([world.cut, world.outside, world.annotations.has(OUTSIDE)], [['2 strict'], [], false]);
  const { level, fields } = world.log.at(-1) ?? assert.fail('nothing was logged');
  assert.equal(level, 'warn');
  assert.deepEqual(
    [fields.code, fields.policy, fields.pod, fields.count, fields.connections],
    ['PREDATES_MESH', 'shop/default', 'orders', 2, ['10.0.0.1:8080 - 10.9.9.9:1', '10.0.0.1:8080 - 10.9.9.9:2']],
  );
});

test('a policy that goes away again within the minute cuts nothing', async () => {
  const world = await enrolled({ outside: [1] });
  world.policy = { kind: 'AuthorizationPolicy', policy: 'shop/only-web' };
  await world.clock.advance(30_000);
  world.policy = undefined;
  await world.clock.advance(30_000);
  world.policy = { kind: 'AuthorizationPolicy', policy: 'shop/only-web' };
  await world.clock.advance(50_000);
  assert.deepEqual(world.cut, []);
  await world.clock.advance(20_000);
  assert.deepEqual(world.cut, ['1 policy']);
});

test('the annotation cuts them, drains them, or keeps them whatever applies, and then status says so', async () => {
  const start = async (wish: string) => {
    const world = setUp();
    world.outside = [1];
    world.policy = { kind: 'AuthorizationPolicy', policy: 'shop/only-web' };
    await world.upsert({ annotations: { 'warren.dev/open-connections': wish } });
    return world;
  };
  const cut = await start('cut');
  await cut.clock.advance(1_000);
  assert.deepEqual(cut.cut, ['1 annotation']);
  const drained = await start('drain=30s');
  await drained.clock.advance(29_000);
  assert.deepEqual(drained.cut, []);
  await drained.clock.advance(1_000);
  assert.deepEqual(drained.cut, ['1 annotation']);
  const kept = await start('keep');
  await kept.clock.advance(600_000);
  assert.deepEqual(kept.cut, []);
  assert.match(kept.annotations.get(PROBLEM) ?? '', /AuthorizationPolicy shop\/only-web does not reach connections that were open before/);
});

test('an annotation that means nothing is named, and is as if it were not there', async () => {
  const world = setUp();
  world.outside = [1];
  await world.upsert({ annotations: { 'warren.dev/open-connections': 'drain=soon' } });
  await world.clock.advance(100_000);
  assert.deepEqual(world.warnings, ['warren.dev/open-connections: "drain=soon" is none of keep, cut, drain=30s (at most 24h)']);
  assert.deepEqual(world.outside, [1]);
});

test('an agent that may not read policies says that it does not know, rather than that nothing applies', async () => {
  const world = await enrolled({ outside: [1], policiesKnown: false });
  await world.clock.advance(1_000);
  assert.match(world.annotations.get(PROBLEM) ?? '', /whether a policy applies to connections from before is not known/);
  world.policiesKnown = true;
  await world.clock.advance(5_000);
  assert.equal(world.annotations.has(PROBLEM), false);
});

test('a pod that leaves is no longer counted, and nothing of ours stays on it', async () => {
  const world = await enrolled({ outside: [1], findings: ['NetworkPolicy shop/web lets nobody in'] });
  await world.clock.advance(1_000);
  assert.deepEqual([...world.annotations.keys()].sort(), [REDIRECTION, OUTSIDE, PROBLEM].sort());
  world.decision = { enrol: false, selected: false, reason: '' };
  world.enrolment.pokeNamespace('shop');
  await world.clock.advance(0);
  assert.deepEqual([[...world.annotations.keys()], world.enrolment.outside], [[], 0]);
});

test('what a NetworkPolicy does to the pod is said in an event and on the pod, until it is mended', async () => {
  const world = await enrolled({ findings: ['NetworkPolicy shop/web shuts the mesh out; open 15008'] });
  assert.equal(world.annotations.get(PROBLEM), 'NetworkPolicy shop/web shuts the mesh out; open 15008');
  assert.deepEqual(world.warnings, ['NetworkPolicy shop/web shuts the mesh out; open 15008']);
  world.findings = [];
  world.enrolment.pokeNamespace('shop');
  await world.clock.advance(0);
  assert.equal(world.annotations.has(PROBLEM), false);
});

test('a problem stands on the pod as long as it lasts', async () => {
  const world = setUp();
  world.fail.set('add', 'no ztunnel is connected');
  await world.upsert({});
  assert.equal(world.annotations.get(PROBLEM), 'no ztunnel is connected');
  world.fail.delete('add');
  await world.clock.advance(6_000);
  assert.equal(world.annotations.has(PROBLEM), false);
});

interface PodFields {
  readonly ip?: undefined;
  readonly annotation?: Redirection;
  readonly annotations?: Record<string, string>;
  readonly phase?: string;
}

/** An enrolment whose surroundings write down what was done, and fail as the test wants. */
function setUp() {
  const clock = new FakeClock();
  const done: string[] = [];
  const warnings: string[] = [];
  const notes: string[] = [];
  /** What the pod's annotations say now. */
  const annotations = new Map<string, string>();
  const fail = new Map<string, string>();
  const step = async (name: string, text = name): Promise<void> => {
    done.push(text);
    const reason = fail.get(name);
    if (reason !== undefined) throw new Error(reason);
  };
  const netns = (fd: number): PodNetns => ({
    fd,
    run: (fn) => fn(),
    identity: () => `4:${fd}`,
    close: () => void done.push(`close ${fd}`),
  });
  const world = {
    clock,
    done,
    warnings,
    notes,
    annotations,
    fail,
    /** What the rules are found to be. */
    found: 'wanted' as RuleState,
    /** Ports of remote ends that the mesh does not carry. */
    outside: [] as number[],
    policy: undefined as AppliedPolicy | undefined,
    policiesKnown: true,
    findings: [] as string[],
    mended: 0,
    cut: [] as string[],
    log: [] as LogEntry[],
    netns,
    decision: { enrol: true } as EnrolmentDecision,
    relayed: 0,
    /** What a look-up finds next; the last one stays. */
    namespaces: [10],
    pod: ({ annotation, annotations: others = {}, phase = 'Running', ...rest }: PodFields): Pod => ({
      metadata: {
        uid: 'uid-1',
        name: 'orders',
        namespace: 'shop',
        annotations: { ...others, ...(annotation !== undefined && { [REDIRECTION]: annotation }) },
      },
      spec: { serviceAccountName: 'orders' },
      // Said to be undefined: the pod has none yet.
      status: { phase, ...('ip' in rest ? {} : { podIPs: [{ ip: '10.0.0.1' }] }) },
    }),
    take: (): string[] => done.splice(0),
    async upsert(fields: PodFields): Promise<void> {
      enrolment.upsert(world.pod(fields));
      await clock.advance(0);
    },
  };
  const enrolment = new Enrolment({
    clock,
    random: () => 0.5,
    log: silentLog,
    drainDeadlineMs: 60_000,
    nodeRules: {
      redirectDns: false,
      ingressMode: false,
      virtualInterfaces: [],
      ipv6: true,
      probeSource: DEFAULT_PROBE_SOURCE,
      captureOpenConnections: false,
    },
    decide: () => world.decision,
    findNetns: () => (world.namespaces[0] === undefined ? undefined : netns(world.namespaces[0])),
    openNetns: (path) => netns(Number(path.split('/').at(-1))),
    network: {
      apply: () => step('apply'),
      mend: async () => {
        await step('mend');
        return world.found;
      },
      drain: () => step('drain'),
      remove: () => step('remove'),
      countRelayed: () => world.relayed,
    },
    ztunnel: { add: (_pod, fd) => step('add', `add +${fd()}`), remove: () => step('del') },
    setProbed: (_uid, ips) => step('probe', ['probe', ...ips].join(' ')),
    async annotate(_pod, changes) {
      if (REDIRECTION in changes) await step('annotate', `annotate ${changes[REDIRECTION] ?? 'none'}`);
      else if (fail.has('annotate')) throw new Error(fail.get('annotate'));
      note(annotations, changes);
    },
    event: (_pod, type, message) => void (type === 'Warning' ? warnings : notes).push(message),
    namespaceAnnotations: () => undefined,
    networkFindings: () => world.findings,
    onMended: () => void world.mended++,
    leftovers: {
      clock,
      log: recordingLog(world.log),
      deadlineMs: 60_000,
      outside: () => world.outside.map((port) => tcpSocket({ remote: port })),
      cut(_netns, connections) {
        const ports = connections.map(({ remote }) => remote.port);
        world.outside = world.outside.filter((port) => !ports.includes(port));
        return ports.length;
      },
      policyFor: () => world.policy,
      policiesKnown: () => world.policiesKnown,
      onCut: (count, reason) => void world.cut.push(`${count} ${reason}`),
    },
  });
  return Object.assign(world, { enrolment });
}

function note(annotations: Map<string, string>, changes: AnnotationChanges): void {
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) annotations.delete(name);
    else annotations.set(name, value);
  }
}

async function enrolled(fields: Partial<ReturnType<typeof setUp>> = {}) {
  const world = Object.assign(setUp(), fields);
  await world.upsert({});
  await world.upsert({ annotation: 'enabled' });
  world.take();
  return world;
}
