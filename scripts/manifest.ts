/**
 * manifests/install.yaml: what real Helm renders of manifests/charts/warren with its default values, and the namespace, which Helm wants to make
 * itself. One file for those who have no Helm, for `meshctl install` without values, and for the playground.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

export const MANIFEST_FILE = 'manifests/install.yaml';
export const CHART = 'manifests/charts/warren';
const NAMESPACE = 'istio-system';

const HEAD = `# The mesh as Kubernetes objects, under the names that Istio's own have, so that each piece can be swapped for its counterpart.
# Made by scripts/generate.ts from manifests/charts/warren with its default values; the playground and \`meshctl install\` apply this same file.
# Istio's kinds are in manifests/charts/warren/crds (kubectl create -f, which leaves those alone that are there).
apiVersion: v1
kind: Namespace
metadata:
  name: ${NAMESPACE}
  labels:
    warren.dev/installation: ${NAMESPACE}
    # ztunnel and the node agent use host paths and capabilities that the stricter levels refuse.
    pod-security.kubernetes.io/enforce: privileged
    pod-security.kubernetes.io/warn: privileged
    pod-security.kubernetes.io/audit: privileged
`;

/** Path of Helm: the machine's, or the one that scripts/helm keeps; undefined where there is none. */
export function findHelm(root: string, env: Readonly<Record<string, string | undefined>>): string | undefined {
  const folders = [...(env.PATH ?? '').split(delimiter), join(root, 'node_modules/.cache/tools')];
  return folders.map((folder) => join(folder, 'helm')).find(isExecutable);
}

/** @returns what Helm prints. @throws {Error} with what Helm says is wrong */
export function renderChart(root: string, helm: string, args: readonly string[] = []): string {
  const { status, stdout, stderr, error } = spawnSync(
    helm,
    ['template', 'warren', join(root, CHART), '--namespace', NAMESPACE, '--kube-version', '1.31.0', ...args],
    { encoding: 'utf8', maxBuffer: 16 << 20 },
  );
  if (error) throw error;
  if (status !== 0) throw new Error(`helm template: ${stderr.trim()}`);
  return stdout;
}

export function renderManifest(root: string, helm: string): string {
  return HEAD + renderChart(root, helm).replaceAll(/^# Source: .*\n/gm, '');
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    // Not there, or not ours to run: the next folder may have one.
    return false;
  }
}
