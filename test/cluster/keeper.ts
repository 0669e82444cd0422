/**
 * What the kernel does not take away with a cluster's processes: its control groups, and its folder under /run. A shell in a session of its
 * own waits for the end of the process that has the cluster, however that comes about, and removes them.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { hierarchies } from './cgroups.ts';

// The groups are busy until the last process in them has gone.
const KEEP = `folder=$1; pid=$2; group=$3; shift 3
cat > /dev/null
tries=0
while [ $tries -lt 300 ]; do
  left=
  for mount in "$@"; do
    [ ! -d "$mount/$group" ] || { find "$mount/$group" -depth -type d -exec rmdir {} + 2> /dev/null; [ ! -d "$mount/$group" ] || left=1; }
  done
  [ -n "$left" ] || break
  tries=$((tries + 1)); sleep 0.1
done
if [ "$(cat "$folder/pid" 2> /dev/null)" = "$pid" ]; then rm -rf "$folder"; rmdir "$(dirname "$folder")" 2> /dev/null; fi
exit 0
`;

export interface Keeper {
  /** Resolves when all is removed. The cluster's processes must be on their way out. */
  finish(): Promise<void>;
}

/** @param folder the instance's; it holds a file `pid` with this process's id */
export function startKeeper(folder: string, group: string): Keeper {
  const mounts = hierarchies().map(({ mount }) => mount);
  const child: ChildProcess = spawn('sh', ['-c', KEEP, 'keeper', folder, String(process.pid), group, ...mounts], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  child.unref();
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()).once('error', () => resolve()));
  return {
    async finish() {
      child.ref();
      child.stdin?.end();
      await ended;
    },
  };
}
