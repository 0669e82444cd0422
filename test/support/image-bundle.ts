/** The images of this checkout in one archive, for tests that run them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { runProgram, succeeded } from './kube-commands.ts';
import { root } from './playground.ts';

const BUILD_TIMEOUT_MS = 900_000;
/** What images/debian.ts says of a package that has been superseded since it was pinned. */
const DROPPED = 'the mirror no longer has';

/**
 * Built from what is pinned; where Debian's mirror has dropped a pinned package, from today's, and that is said: a security update of Debian's is
 * no failure of ours, and whoever reads the test's output knows to pin anew.
 * @param components all of them where none is named
 */
export async function imageBundle(t: TestContext, ...components: readonly string[]): Promise<string> {
  const { [SHARED]: shared } = process.env;
  // The gate has built them once for all of its tests.
  if (shared) return shared;
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return await buildBundle(folder, components, (line) => t.diagnostic(line));
}

/** Names, for tests in processes of their own, an archive of all images. */
export const SHARED = 'WARREN_TEST_IMAGES';

/** @returns the archive, in the folder */
export async function buildBundle(folder: string, components: readonly string[], tell: (line: string) => void): Promise<string> {
  const file = join(folder, 'images.tar');
  const build = (...more: string[]) =>
    runProgram(join(root, 'scripts/images'), [...more, '--test', '--bundle', file, ...components], undefined, BUILD_TIMEOUT_MS);
  const pinned = await build();
  if (pinned.code !== 0 && pinned.stderr.includes(DROPPED)) {
    tell(pinned.stderr.split('\n').find((line) => line.includes(DROPPED)) ?? '');
    succeeded('scripts/images --newest-debian', await build('--newest-debian'));
  } else succeeded('scripts/images', pinned);
  return file;
}
