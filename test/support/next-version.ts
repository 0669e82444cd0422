/**
 * A next version of what this checkout is, to upgrade to: a meshctl whose manifests name another version, and the same images under that name
 * on the nodes of a cluster. What they have in them is the same; that objects, images and labels change over is what is looked at.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { VERSION } from '../../common/base/version.ts';
import { build } from '../cluster/build.ts';
import { ctr } from '../cluster/node.ts';
import type { TestCluster } from './cluster.ts';
import { root } from './playground.ts';

export const NEXT = '99.0.0';
/** What meshctl is made of. */
const PARTS = ['meshctl', 'common', 'istiod-lite', 'manifests', 'package.json'];
const WITH_VERSION = ['manifests/install.yaml', 'manifests/charts/warren/Chart.yaml', 'common/base/version.ts', 'package.json'];

/** @returns the program */
export function nextMeshctl(t: TestContext): string {
  const copy = mkdtempSync(join(tmpdir(), 'warren-next-'));
  t.after(() => rmSync(copy, { recursive: true, force: true }));
  for (const name of PARTS) cpSync(join(root, name), join(copy, name), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  for (const name of WITH_VERSION) writeFileSync(join(copy, name), readFileSync(join(copy, name), 'utf8').replaceAll(VERSION, NEXT));
  return join(copy, 'meshctl/main.ts');
}

/** Gives the images that are on each node the next version's name too. */
export async function tagNext(cluster: TestCluster, nodes: readonly string[], components: readonly string[]): Promise<void> {
  const { debian } = await build(() => undefined);
  for (const node of nodes)
    for (const component of components) {
      const name = `docker.io/warren/${component}`;
      cluster.node(node).run(...ctr([], debian, 'images', 'tag', `${name}:${VERSION}`, `${name}:${NEXT}`));
    }
}
