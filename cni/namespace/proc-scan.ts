/**
 * Which process belongs to which pod, read from the cgroups in /proc. The kubelet puts a pod's UID into the path of its cgroup, with dashes
 * (cgroupfs driver) or underscores (systemd driver). A process that entered the cgroup later may be in another network namespace, so the
 * oldest counts.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface PodProcess {
  readonly pid: number;
  /** In clock ticks since boot. */
  readonly startTime: bigint;
}

const UID = /pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=[./]|$)/g;

/** @param wanted UIDs to look for; all where it is not given. @returns the oldest process of each pod */
export function findPodProcesses(procRoot: string, wanted?: ReadonlySet<string>): Map<string, PodProcess> {
  const found = new Map<string, PodProcess>();
  for (const entry of readdirSync(procRoot)) {
    if (!/^\d+$/.test(entry)) continue;
    const process = readPodProcess(join(procRoot, entry), wanted);
    if (!process) continue;
    const known = found.get(process.uid);
    if (!known || process.startTime < known.startTime) found.set(process.uid, { pid: Number(entry), startTime: process.startTime });
  }
  return found;
}

/** UID of the pod in the text of a cgroup file; undefined where it belongs to none. */
export function podUidOfCgroup(text: string): string | undefined {
  // In a nested cluster the node's own pod comes first in the path, and the pod that we look for last.
  const uid = [...text.matchAll(UID)].at(-1)?.[1];
  return uid?.replaceAll('_', '-');
}

/** Field 22 of a stat file. The name in field 2 may hold blanks and brackets, so counting begins after the last bracket. */
export function startTimeOfStat(text: string): bigint | undefined {
  const field = text
    .slice(text.lastIndexOf(')') + 1)
    .trim()
    .split(/\s+/)[19];
  return field !== undefined && /^\d+$/.test(field) ? BigInt(field) : undefined;
}

function readPodProcess(folder: string, wanted: ReadonlySet<string> | undefined): { uid: string; startTime: bigint } | undefined {
  try {
    const uid = podUidOfCgroup(readFileSync(join(folder, 'cgroup'), 'utf8'));
    if (uid === undefined || (wanted && !wanted.has(uid))) return undefined;
    const startTime = startTimeOfStat(readFileSync(join(folder, 'stat'), 'utf8'));
    return startTime === undefined ? undefined : { uid, startTime };
  } catch {
    // Processes end while they are looked at.
    return undefined;
  }
}
