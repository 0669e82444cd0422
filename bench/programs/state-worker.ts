/** A data worker of the memory bench: holds a reader, looks addresses up as connections would, and answers when it is done. */
import { parentPort, workerData } from 'node:worker_threads';
import { routeOutbound } from '../../common/decision/outbound.ts';
import { MeshStateReader } from '../../common/state/reader.ts';
import type { SharedMeshState } from '../../common/state/shared.ts';
import { podIp, serviceVip } from './synthetic-mesh.ts';

const { state }: { state: SharedMeshState } = workerData;
const reader = new MeshStateReader(state);

const TALKED_TO = 1000;

parentPort?.on('message', ({ workloads, lookups }: { workloads: number; lookups: number }) => {
  reader.refresh();
  const source = reader.workloadByAddress('', podIp(0));
  for (let i = 0; i < lookups && source; i++) {
    // The pods of one node talk to a part of the mesh, however large it is.
    const pod = (i * 7919) % Math.min(workloads, TALKED_TO);
    const ip = i % 2 === 0 ? podIp(pod) : serviceVip(Math.floor(pod / 20));
    routeOutbound(reader, { source, destination: { ip, port: 80 }, network: '', random: Math.random });
  }
  globalThis.gc?.();
  parentPort?.postMessage('done');
});
