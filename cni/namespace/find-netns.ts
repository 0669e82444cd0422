/**
 * From a pod to its network namespace: the one that the CNI call named, a file named after the pod's UID in a folder of namespaces, or a
 * process of the pod found by its cgroup in the host's /proc. A namespace that turns out to be the node's own is refused: rules meant for
 * a pod would cut off the node.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Netns } from '../../common/linux/netns.ts';
import { findPodProcesses, type PodProcess } from './proc-scan.ts';

export interface NetnsFinderOptions {
  /** Folder of namespace files named after pod UIDs, or undefined. */
  readonly folder: string | undefined;
  /** Where the host's /proc is seen. */
  readonly procRoot: string;
  /** Of the node's own namespace. */
  readonly nodeIdentity: string;
}

/** The namespace that this process is in. */
export function ownIdentity(): string {
  const own = Netns.current();
  try {
    return own.identity();
  } finally {
    own.close();
  }
}

export class NetnsFinder {
  readonly #options: NetnsFinderOptions;

  constructor(options: NetnsFinderOptions) {
    this.#options = options;
  }

  /** Opens what a CNI call named. @throws {LinuxError} where it is not there or no namespace; {Error} where it is the node's */
  open(path: string): Netns {
    // Paths in the host's /proc mean other processes in ours.
    const seen = path.startsWith('/proc/') ? join(this.#options.procRoot, path.slice('/proc/'.length)) : path;
    return this.#notNode(Netns.open(seen), path);
  }

  /** @returns undefined where the pod has no namespace that we can see (it has not started, or is gone) */
  find(uid: string): Netns | undefined {
    return this.findAll([uid]).get(uid);
  }

  /** Many pods with one look at /proc. The caller closes what it gets. */
  findAll(uids: readonly string[]): Map<string, Netns> {
    const found = new Map<string, Netns>();
    const missing = new Set<string>();
    for (const uid of uids) {
      const path = this.#options.folder === undefined ? undefined : join(this.#options.folder, uid);
      const netns = path !== undefined && existsSync(path) ? this.#tryOpen(path) : undefined;
      if (netns) found.set(uid, netns);
      else missing.add(uid);
    }
    if (missing.size === 0) return found;
    for (const [uid, process] of findPodProcesses(this.#options.procRoot, missing)) {
      const netns = this.#tryOpen(this.#netnsOf(process));
      if (netns) found.set(uid, netns);
    }
    return found;
  }

  #netnsOf = ({ pid }: PodProcess): string => join(this.#options.procRoot, String(pid), 'ns/net');

  #tryOpen(path: string): Netns | undefined {
    try {
      return this.#notNode(Netns.open(path), path);
    } catch {
      // A process that ended between two looks, a mount that is going away, a pod in the node's network: all have no namespace for us.
      return undefined;
    }
  }

  #notNode(netns: Netns, path: string): Netns {
    if (netns.identity() !== this.#options.nodeIdentity) return netns;
    netns.close();
    throw new Error(`${path} is the node's own network namespace, not a pod's`);
  }
}
