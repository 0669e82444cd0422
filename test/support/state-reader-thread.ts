/** A thread that reads the mesh state as fast as it can and counts the pictures that are not of one push. See state-memory.test.ts. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { MeshStateReader } from '../../common/state/reader.ts';
import type { SharedMeshState } from '../../common/state/shared.ts';

const { shared, pods }: { shared: SharedMeshState; pods: number } = workerData;
const reader = new MeshStateReader(shared, { cacheEntries: 8 });
const report = { pictures: 0, torn: 0, last: 0 };

const look = (): void => {
  if (reader.refresh()) report.pictures++;
  const revisions = new Set<string | undefined>();
  for (let i = 0; i < pods; i++) revisions.add(reader.workloadByAddress('', `10.0.0.${i}`)?.canonicalRevision);
  const [revision] = revisions;
  if (revisions.size !== 1 || revision === undefined) report.torn++;
  else report.last = Number(revision);
};

if (parentPort) {
  look();
  parentPort.postMessage('ready');
  while (receiveMessageOnPort(parentPort) === undefined) look();
  look();
  parentPort.postMessage(report);
  reader.close();
}
