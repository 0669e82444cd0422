/** Memory beside the JavaScript heaps that a process has touched while it started and does not need any more. */
import { readFileSync, readlinkSync } from 'node:fs';
import { call, libc, MADV_DONTNEED } from './libc.ts';

/**
 * Returns to the system what all threads have freed and their allocator keeps for the next time; some milliseconds for whoever allocates meanwhile.
 * @see malloc_trim(3)
 */
export function returnFreeMemory(): void {
  libc.malloc_trim(0);
}

/**
 * Lets go of the pages of Node's own binary: a start touches 50 MB of it, running a proxy a third of that. What is needed comes back from the page
 * cache, sixteen pages at a time. @throws {LinuxError}
 */
export function releaseProgramPages(): void {
  for (const { address, bytes } of programMappings(readFileSync('/proc/self/smaps', 'latin1'), readlinkSync('/proc/self/exe'))) {
    call('madvise', 'the program', () => libc.madvise(address, bytes, MADV_DONTNEED));
  }
}

/**
 * Read-only mappings of a file that are as the file is: where the loader has written into one (relocations), its pages exist nowhere else.
 * @param smaps text of /proc/PID/smaps (proc_pid_smaps(5))
 */
export function programMappings(smaps: string, program: string): { readonly address: number; readonly bytes: number }[] {
  const found: { address: number; bytes: number }[] = [];
  let current: { address: number; bytes: number } | undefined;
  for (const line of smaps.split('\n')) {
    const [, from = '', to = '', rights = '', path = ''] = MAPPING.exec(line) ?? [];
    if (from !== '') {
      const address = Number.parseInt(from, 16);
      current = path === program && !rights.includes('w') ? { address, bytes: Number.parseInt(to, 16) - address } : undefined;
    } else if (current && line.startsWith('Anonymous:')) {
      if (/^Anonymous:\s+0 kB/.test(line)) found.push(current);
      current = undefined;
    }
  }
  return found;
}

const MAPPING = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)$/;
