/** The user that the kubelet runs as, so that only its connections count as probes. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

// The kubelet, and the programs that contain it (k3s also as its server and agent).
const NAMES = new Set(['kubelet', 'kubelite', 'k3s', 'k3s-server', 'k3s-agent']);

/** @returns undefined where no kubelet is seen: then any socket of the node counts */
export function findKubeletUid(procRoot: string): number | undefined {
  for (const entry of readdirSync(procRoot)) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      if (!NAMES.has(readFileSync(join(procRoot, entry, 'comm'), 'utf8').trim())) continue;
      const uid = /^Uid:\s+(\d+)/m.exec(readFileSync(join(procRoot, entry, 'status'), 'utf8'))?.[1];
      if (uid !== undefined) return Number(uid);
    } catch {
      // Processes end while they are looked at.
    }
  }
  return undefined;
}
