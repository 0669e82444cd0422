/** Memory and time of ztunnel's packed state: what the mesh's size costs a node. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { DeltaDiscoveryResponse } from '../common/codec/gen/discovery.ts';
import { routeOutbound } from '../common/decision/outbound.ts';
import { MeshStateReader } from '../common/state/reader.ts';
import { ADDRESS_TYPE, type ListedPush, MeshStateWriter } from '../common/state/writer.ts';
import { PODS_PER_SERVICE, podIp, serviceVip, syntheticPush } from './programs/synthetic-mesh.ts';
import { absoluteRow, type Bench, median, type Row } from './rows.ts';

interface Memory {
  readonly rss: number;
  readonly peak: number;
  readonly applyMs: number;
  readonly shared: number;
}

/**
 * Each thread has a nursery of its own, by default of 16 MB three times over, which a proxy has no use for: its bytes lie outside the heap.
 * ztunnel is started with the same limit (images/components.json).
 */
const NODE_FLAGS = ['--expose-gc', '--max-semi-space-size=2'];
const ROUNDS = 3;
/** A mesh of one service: the same code has run, and there is nothing to keep. */
const NEARLY_NONE = PODS_PER_SERVICE;
const MEMORY_TARGETS_MB: readonly (readonly [workloads: number, target: number])[] = [
  [20_000, 80],
  [100_000, 250],
];

export const bench: Bench = {
  name: 'state',
  doc: 'Memory of 20,000 and 100,000 workloads over a supervisor and two workers, and the time of look-ups and pushes',
  async run() {
    return [...(await memoryRows()), ...lookupRows(), ...pushRows()];
  },
};

async function memoryRows(): Promise<Row[]> {
  const folder = mkdtempSync(join(tmpdir(), 'warren-bench-'));
  try {
    const none = await measureMemory(folder, NEARLY_NONE);
    const rows: Row[] = [];
    for (const [workloads, target] of MEMORY_TARGETS_MB) {
      const some = await measureMemory(folder, workloads);
      const row = { bench: 'state', case: `${workloads} workloads`, unit: 'MB', better: 'less' } as const;
      rows.push(
        absoluteRow({ ...row, metric: 'memory more than none', ours: some.rss - none.rss, target }),
        absoluteRow({ ...row, metric: 'peak more than none', ours: some.peak - none.peak }),
        absoluteRow({ ...row, metric: 'shared state', ours: some.shared }),
        absoluteRow({ ...row, unit: 'ms CPU', metric: 'first push applied', ours: some.applyMs }),
      );
    }
    return rows;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function measureMemory(folder: string, workloads: number): Promise<Memory> {
  const file = join(folder, `push-${workloads}`);
  writeFileSync(file, encodeResponse(syntheticPush(workloads)));
  const program = fileURLToPath(new URL('./programs/state-memory.ts', import.meta.url));
  const rounds: Memory[] = [];
  const round = async (): Promise<Memory> => {
    const { stdout } = await promisify(execFile)(process.execPath, [...NODE_FLAGS, program, file, String(workloads)]);
    return JSON.parse(stdout);
  };
  for (let i = 0; i < ROUNDS; i++) rounds.push(await round());
  const middle = (field: keyof Memory): number => median(rounds.map((round) => round[field]));
  return { rss: middle('rss'), peak: middle('peak'), applyMs: middle('applyMs'), shared: middle('shared') };
}

function encodeResponse({ typeUrl, resources }: ListedPush): Uint8Array {
  return DeltaDiscoveryResponse.encode({
    systemVersionInfo: '',
    typeUrl,
    nonce: '1',
    removedResources: [],
    resources: resources.map(({ name, version, bytes }) => ({
      name,
      version,
      resource: { typeUrl, value: bytes },
      aliases: [],
    })),
  }).finish();
}

/** Of the process with its garbage collector: what is running beside us does not show in it. */
function cpuMicroseconds(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

const DECISIONS = 20_000;

function lookupRows(): Row[] {
  const rows: Row[] = [];
  for (const podsPerService of [10, 1000, 10_000]) {
    const writer = new MeshStateWriter();
    writer.apply(syntheticPush(10_000, podsPerService));
    const reader = new MeshStateReader(writer.shared);
    for (const [kind, hot] of [
      ['pod address, all pods in turn', 10_000],
      ['pod address, 1,000 pods', 1000],
    ] as const) {
      if (podsPerService === 10) rows.push(decisionRow(kind, reader, (i) => podIp((i * 7919) % hot)));
    }
    rows.push(
      decisionRow(`virtual address, ${podsPerService} endpoints`, reader, (i) => serviceVip(i % Math.ceil(10_000 / podsPerService))),
    );
    reader.close();
  }
  return rows;
}

function decisionRow(name: string, reader: MeshStateReader, ip: (i: number) => string): Row {
  const source = reader.workloadByAddress('', podIp(0));
  if (!source) throw new Error('the first pod is not there');
  const round = (): number => {
    const started = cpuMicroseconds();
    for (let i = 0; i < DECISIONS; i++) {
      routeOutbound(reader, { source, destination: { ip: ip(i), port: 80 }, network: '', random: Math.random });
    }
    return (cpuMicroseconds() - started) / DECISIONS;
  };
  round();
  const ours = median([round(), round(), round()]);
  return absoluteRow({ bench: 'state', case: name, metric: 'outbound decision', unit: 'µs CPU', ours, better: 'less' });
}

const UPDATES = 200;

function pushRows(): Row[] {
  const writer = new MeshStateWriter();
  const all = syntheticPush(20_000);
  writer.apply(all);
  const workloads = all.resources.slice(1000);
  let version = 0;
  const update = (count: number): number => {
    const started = cpuMicroseconds();
    for (let i = 0; i < UPDATES / count; i++) {
      const resources = workloads
        .slice(i * count, (i + 1) * count)
        .map((resource) => ({ ...resource, bytes: renamed(resource.bytes, ++version) }));
      writer.apply({ typeUrl: ADDRESS_TYPE, resources, removed: [] });
    }
    return (cpuMicroseconds() - started) / UPDATES;
  };
  update(1);
  return [1, 20].map((count) =>
    absoluteRow({
      bench: 'state',
      case: `pushes of ${count}, 20,000 workloads held`,
      metric: 'one workload updated',
      unit: 'µs CPU',
      ours: median([update(count), update(count), update(count)]),
      better: 'less',
    }),
  );
}

/** The same resource with other bytes: an unknown field at its end, which decoding passes over. */
function renamed(bytes: Uint8Array, version: number): Uint8Array {
  const suffix = [0xf8, 0x07, version & 0x7f, 0xf8, 0x07, (version >> 7) & 0x7f];
  return Uint8Array.of(...bytes, ...suffix);
}
