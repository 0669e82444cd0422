/** What tests leave where they are killed, and the kernel does not take away: named network namespaces, and the folders of playgrounds. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { forget, INSTANCES, pidOf } from '../../playground/instance.ts';

const NAMESPACES = '/run/netns';
/** As netns.ts, playground.ts and cluster.ts name them: after the process that made them. */
const MADE_BY = /^(?:warren-)?test-(\d+)-\d+$/;

/** Removes those whose maker is gone. @returns what it removed */
export function removeLeftovers(): string[] {
  const orphaned = (name: string): boolean => {
    const [, pid] = MADE_BY.exec(name) ?? [];
    return pid !== undefined && !existsSync(`/proc/${pid}`);
  };
  const namespaces = existsSync(NAMESPACES) ? readdirSync(NAMESPACES).filter(orphaned) : [];
  for (const name of namespaces) spawnSync('ip', ['netns', 'del', name], { stdio: 'ignore' });
  const playgrounds = existsSync(INSTANCES) ? readdirSync(INSTANCES).filter(orphaned) : [];
  // One that is on its way out removes its own.
  const gone = playgrounds.filter((name) => !existsSync(`/proc/${pidOf(name)}`));
  for (const name of gone) forget(name);
  return [...namespaces, ...gone];
}
