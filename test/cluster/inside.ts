/**
 * The inner process of `up`, below the first of the cluster's PID namespace, in start order: state, wire, nodes beside the API server, what
 * needs both. Tells the outer process how far it is, and ends when its standard input does.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { errorMessage } from '../../common/base/errors.ts';
import { raiseOpenFileLimit } from '../../common/linux/limits.ts';
import { connectNodes, startFabric } from '../../playground/network/fabric.ts';
import { API_PORT, FABRIC, planNode } from '../../playground/network/plan.ts';
import { INNER, type InnerMessage } from '../../playground/outside.ts';
import { CACHE, type Parts } from './build.ts';
import { joinGroup, makeGroup } from './cgroups.ts';
import { apiGet, startApiServer, startControllers } from './control-plane.ts';
import { createCredentials, kubeconfig } from './credentials.ts';
import { Daemons } from './daemons.ts';
import { type Folders, importImages, startContainerd, startKubelet, startNode } from './node.ts';
import { pauseImage } from './pause-image.ts';

export interface InsideOptions {
  readonly nodes: number;
  /** Of the instance: logs go below it, and the state's tmpfs is mounted there. */
  readonly folder: string;
  /** Name of the cluster's control group in each hierarchy. */
  readonly group: string;
  readonly parts: Parts;
}

/** @returns never, unless by the end of standard input */
export async function runInside({ nodes, folder, group, parts }: InsideOptions): Promise<number> {
  const fail = (error: unknown): never => {
    tell({ type: 'failed', message: errorMessage(error) });
    return process.exit(1);
  };
  raiseOpenFileLimit();
  // Whatever happens to the outer process, its end of this pipe closes. With this process, process 1 of the namespace ends, and with it all.
  process.stdin.resume();
  const told = new Promise<void>((resolve) => process.stdin.once('close', resolve).once('end', resolve));
  void told.then(() => process.exit(0));
  process.on('uncaughtException', fail);
  try {
    const folders = mountState(join(folder, 'state'), parts);
    const daemons = new Daemons(join(folder, 'logs'), (complaint) => fail(new Error(complaint)));
    const plans = Array.from({ length: nodes }, (_, i) => planNode(i + 1, false));
    const credentials = createCredentials(
      join(folders.state, 'credentials'),
      plans.map(({ name }) => name),
    );

    joinGroup(makeGroup(group, 'control-plane'));
    await startFabric(false);
    const apiServer = startApiServer(folders.parts, folders.state, credentials, daemons);
    const started = await Promise.all(plans.map((plan) => startNode(plan, folders, group)));
    await connectNodes(started);
    const image = pauseImage(readFileSync(folders.parts.pause));
    const prepared = Promise.all(
      started.map(async (node) => {
        await startContainerd(node, folders, daemons);
        await importImages(node, folders.parts, image);
      }),
    );
    await apiServer;
    tell({ type: 'progress', text: 'the API server is ready' });
    await startControllers(folders.parts, folders.state, credentials, daemons);
    await prepared;
    for (const node of started) startKubelet(node, folders, credentials, daemons);
    const port = relayToApiServer();
    const identities = started.map(({ plan, netns }) => ({ name: plan.name, netns }));
    tell({
      type: 'cluster',
      kubeconfig: kubeconfig(`https://127.0.0.1:${await port}`, credentials.caPem, credentials.adminToken),
      nodes: identities,
    });
    await daemons.until('not all nodes are ready', async () => {
      // Without a service account no pod can be made.
      await apiGet('/api/v1/namespaces/default/serviceaccounts/default', credentials);
      const { items } = JSON.parse(await apiGet('/api/v1/nodes', credentials)) as { items: RawNode[] };
      return items.length === nodes && items.every(isReady);
    });
    tell({ type: 'ready' });
  } catch (error) {
    return fail(error);
  }
  await told;
  return 0;
}

interface RawNode {
  readonly status: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

const isReady = ({ status }: RawNode): boolean =>
  (status.conditions ?? []).some((condition) => condition.type === 'Ready' && condition.status === 'True');

/** A tmpfs, and in it the machine's root and the programs, where each node's mounts find them. */
function mountState(state: string, parts: Parts): Folders {
  const mount = (...args: string[]): void => {
    execFileSync('mount', args, { stdio: ['ignore', 'ignore', 'inherit'] });
  };
  mount('-t', 'tmpfs', '-o', 'mode=755', 'warren', state);
  const host = join(state, 'host');
  const programs = join(state, 'programs');
  mkdirSync(host);
  mkdirSync(programs);
  mount('--bind', '/', host);
  mount('--bind', '-o', 'ro', CACHE, programs);
  const moved = (path: string): string => join(programs, path.slice(CACHE.length));
  const { kubernetes, pause, coredns, debian } = parts;
  return { state, host, parts: { kubernetes: moved(kubernetes), pause: moved(pause), coredns: moved(coredns), debian: moved(debian) } };
}

/** The listening socket is the outer process's, on the machine's loopback; the API server is in here. */
function relayToApiServer(): Promise<number> {
  const server = net.createServer({ allowHalfOpen: true }, (client) => {
    const upstream = net.connect({ host: FABRIC.v4, port: API_PORT, allowHalfOpen: true });
    client.pipe(upstream).pipe(client);
    client.on('error', () => upstream.destroy()).on('close', () => upstream.destroy());
    upstream.on('error', () => client.destroy()).on('close', () => client.destroy());
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject).listen({ fd: INNER.listener }, () => {
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : 0);
    });
  });
}

function tell(message: InnerMessage): void {
  writeSync(INNER.messages, `${JSON.stringify(message)}\n`);
}
