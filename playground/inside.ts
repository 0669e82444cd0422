/** The inner process of `up`, below the first of its PID namespace. Tells the outer one how far it is, and ends when its standard input does. */
import { readlinkSync, realpathSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../common/base/clock.ts';
import { errorMessage } from '../common/base/errors.ts';
import { createLog, LOG_LEVELS, type LogLevel } from '../common/base/log.ts';
import { raiseOpenFileLimit } from '../common/linux/limits.ts';
import { applyMesh } from './cluster/mesh.ts';
import { INSTANCES } from './instance.ts';
import { INNER, type InnerMessage } from './outside.ts';
import { startPlayground } from './playground.ts';

export interface InsideOptions {
  readonly name: string;
  readonly nodes: number;
  readonly mesh: boolean;
  readonly logLevel: string;
}

const MESH_PATIENCE_MS = 60_000;

/** @returns the exit status, when it is time to go */
export async function runInside({ name, nodes, mesh, logLevel }: InsideOptions): Promise<number> {
  const checkout = realpathSync(fileURLToPath(new URL('..', import.meta.url)));
  const { log } = createLog({ level: levelOf(logLevel), format: 'text', scope: 'playground' });
  raiseOpenFileLimit();
  // Whatever happens to the outer process, its end of this pipe closes.
  process.stdin.resume();
  const told = new Promise<void>((resolve) => process.stdin.once('close', resolve).once('end', resolve));
  void told.then(() => process.exit(0));
  process.on('uncaughtException', (error) => {
    tell({ type: 'failed', message: error.stack ?? error.message });
    process.exit(1);
  });
  try {
    const playground = await startPlayground({
      nodes,
      state: join(INSTANCES, name, 'state'),
      checkout,
      listener: INNER.listener,
      clock: systemClock,
      log,
      random: Math.random,
    });
    const identities = playground.nodes.map(({ plan, netnsPath }) => ({ name: plan.name, netns: readlinkSync(netnsPath) }));
    tell({ type: 'cluster', kubeconfig: playground.kubeconfig, nodes: identities });
    if (mesh) {
      tell({ type: 'progress', text: 'cluster is up, starting the mesh' });
      await applyMesh(playground.cluster, playground.server.store, join(checkout, 'manifests'), systemClock, MESH_PATIENCE_MS);
    }
    tell({ type: 'ready' });
  } catch (error) {
    tell({ type: 'failed', message: errorMessage(error) });
    return process.exit(1);
  }
  await told;
  return 0;
}

function tell(message: InnerMessage): void {
  writeSync(INNER.messages, `${JSON.stringify(message)}\n`);
}

const levelOf = (text: string): LogLevel => LOG_LEVELS.find((level) => level === text) ?? 'error';
