/**
 * Network namespaces. A thread enters one for the length of a synchronous function: what is created there (sockets, child processes) stays
 * there, the thread comes back. `setns` moves one thread only, so everything asynchronous that Node does (DNS, files, crypto) remains in
 * the process's own namespace; connect by address, and resolve names over sockets made inside.
 */
import { fstatSync } from 'node:fs';
import { closeFd, openFd } from './descriptor.ts';
import { CLONE_NEWNET, call, LinuxError, libc, NS_GET_NSTYPE } from './libc.ts';

// /proc/self is the main thread's, also in workers. Opened once and kept for life: it is the way back.
const CURRENT_PATH = '/proc/thread-self/ns/net';
const EINVAL = 22;
let homeFd = -1;
let enteredFd = -1;

export class Netns {
  readonly fd: number;
  #open = true;

  private constructor(fd: number) {
    this.fd = fd;
  }

  /** @param path a namespace file such as /proc/PID/ns/net or /var/run/netns/NAME. @throws {LinuxError} naming the path */
  static open(path: string): Netns {
    const fd = openFd(path);
    try {
      assertNetworkNamespace(fd, path);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    return new Netns(fd);
  }

  /** Takes the descriptor over; where it is not one of a network namespace it throws, and the descriptor stays the caller's. */
  static fromFd(fd: number): Netns {
    assertNetworkNamespace(fd, `descriptor ${fd}`);
    return new Netns(fd);
  }

  /** A new one, empty, that lasts until it is closed and nothing else needs it. The thread stays where it is. @throws {LinuxError} EPERM */
  static create(): Netns {
    const home = Netns.current();
    try {
      return home.run(() => {
        call('unshare', 'a network namespace', () => libc.unshare(CLONE_NEWNET));
        return Netns.current();
      });
    } finally {
      home.close();
    }
  }

  /** The namespace that this thread is in. */
  static current(): Netns {
    return Netns.open(CURRENT_PATH);
  }

  /**
   * Runs `fn` with this thread inside the namespace, and returns its result. May be nested.
   * Aborts the process when the way back fails: the thread would go on in a stranger's network.
   * @param fn strictly synchronous; nothing in it may start a thread or use libuv's pool
   * @throws {LinuxError} where the namespace cannot be entered; what fn throws; {TypeError} where fn returned a promise
   */
  run<T>(fn: () => T): T {
    if (!this.#open) throw new Error('the network namespace was closed');
    if (homeFd < 0) homeFd = openFd(CURRENT_PATH);
    const back = enteredFd;
    call('setns', 'into a network namespace', () => libc.setns(this.fd, CLONE_NEWNET));
    enteredFd = this.fd;
    let result: T;
    try {
      result = fn();
    } finally {
      enteredFd = back;
      if (libc.setns(back < 0 ? homeFd : back, CLONE_NEWNET) < 0) libc.abort();
    }
    if (isThenable(result)) throw new TypeError('what runs inside a network namespace must be synchronous, this returned a promise');
    return result;
  }

  /** `device:inode`, equal for two descriptors of one namespace. */
  identity(): string {
    const { dev, ino } = fstatSync(this.fd, { bigint: true });
    return `${dev}:${ino}`;
  }

  /** The namespace itself lives on while a process, a socket or a mount needs it. A second call does nothing. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeFd(this.fd);
  }
}

function assertNetworkNamespace(fd: number, about: string): void {
  // Files that are no namespace answer ENOTTY; other kinds of namespace another type.
  const type = libc.ioctl(fd, NS_GET_NSTYPE, 0);
  if (type !== CLONE_NEWNET) throw new LinuxError('open network namespace', EINVAL, `${about} is no network namespace`);
}

const isThenable = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
