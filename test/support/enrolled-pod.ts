/** One pod's enrolment in the node agent, whose surroundings write down what was done, and fail as the test wants. */
import type { EnrolmentDecision, Pod } from '../../cni/enrol/decision.ts';
import { Enrolment } from '../../cni/enrol/enrolment.ts';
import { type AnnotationChanges, REDIRECTION, type Redirection } from '../../cni/enrol/pod-voice.ts';
import type { AppliedPolicy } from '../../cni/enrol/policies.ts';
import type { RuleState } from '../../cni/namespace/rule-backend.ts';
import type { PodNetns } from '../../cni/namespace/run-inside.ts';
import { DEFAULT_PROBE_SOURCE } from '../../cni/rules/constants.ts';
import { silentLog } from '../../common/base/log.ts';
import { FakeClock } from './fake-clock.ts';
import { type LogEntry, recordingLog } from './recording-log.ts';
import { tcpSocket } from './tcp-sockets.ts';

export interface PodFields {
  readonly ip?: undefined;
  readonly annotation?: Redirection;
  readonly annotations?: Record<string, string>;
  readonly phase?: string;
}

export function setUp() {
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

/** A pod that is in the mesh; what was done for that is forgotten. */
export async function enrolled(fields: Partial<ReturnType<typeof setUp>> = {}) {
  const world = Object.assign(setUp(), fields);
  await world.upsert({});
  await world.upsert({ annotation: 'enabled' });
  world.take();
  return world;
}
