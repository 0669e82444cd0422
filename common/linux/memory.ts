/** Memory that the C library holds: OpenSSL's, libuv's and Node's own, beside the JavaScript heaps. */
import { libc } from './libc.ts';

/** Returns to the system what all threads have freed and their allocator keeps for the next time; some milliseconds for whoever allocates meanwhile. */
export function returnFreeMemory(): void {
  libc.malloc_trim(0);
}
