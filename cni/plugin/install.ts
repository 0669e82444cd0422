/**
 * The file by which whoever creates pods on this node knows that the node agent decides about them (README.md has its form). It stays when
 * the agent is replaced: pods wait for the next agent rather than start outside the mesh. Only when the agent is uninstalled it goes.
 */
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const MARKER_NAME = 'warren-cni.json';

export interface Marker {
  /** Path of the event socket, as the node sees it. */
  readonly socket: string;
  readonly excludeNamespaces: readonly string[];
}

/** @returns the file's path. @throws the Error of node:fs, naming the folder */
export function installMarker(folder: string, { socket, excludeNamespaces }: Marker): string {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, MARKER_NAME);
  // Renamed into place: a reader sees the whole file or none.
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, `${JSON.stringify({ type: 'istio-cni', socket, path: '/cmdadd', excludeNamespaces }, null, 2)}\n`, {
    mode: 0o644,
  });
  renameSync(temporary, path);
  return path;
}

export function removeMarker(folder: string): void {
  rmSync(join(folder, MARKER_NAME), { force: true });
}
