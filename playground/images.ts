/**
 * Images without a registry: the mesh's own names stand for programs of this checkout, the names of the Gateway API's and Istio's echo
 * servers for the echo program, and with any other image the container's command is a command of the machine.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Container } from './objects.ts';

/** The checkout as every container sees it. Its real path may lead through folders that an unprivileged user may not enter. */
export const CHECKOUT = '/opt/warren';
/** Where Node keeps what it compiled, inside a container; not below the checkout, whose `node_modules` may be a link to somewhere else. */
export const COMPILE_CACHE = '/opt/warren-compiled';
/** The same in the checkout, with a folder for each user. */
export const COMPILED = 'node_modules/.cache/compile-pods';

export interface Image {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Executables that the image brings: path to shell script. */
  readonly scripts: Readonly<Record<string, string>>;
}

const programs: Readonly<Record<string, string>> = {
  'warren/istiod': 'istiod-lite/main.ts',
  'warren/ztunnel': 'ztunnel/main.ts',
  'warren/cni': 'cni/main.ts',
  'warren/waypoint': 'waypoint/main.ts',
  'warren/echo': 'playground/programs/echo.ts',
  'warren/collector': 'playground/programs/collector.ts',
  'istio-release/app': 'playground/programs/echo.ts',
  'istio/app': 'playground/programs/echo.ts',
  'conformance/echo-advanced': 'playground/programs/echo.ts',
  'conformance/echo-basic': 'playground/programs/echo-basic.ts',
};

// `scripts/plugin` builds it; without it the kubelet asks the agent itself (kubelet/plugin.ts).
const CNI_PLUGIN = `node_modules/.cache/cni-plugin/istio-cni-${process.arch === 'arm64' ? 'arm64' : 'amd64'}`;

/**
 * As in images/components.json. V8's nursery in MiB: what is larger stays resident after load. The garbage collector in the program's own hand; or without
 * threads of its own, which cost a small heap more than they save it. Code and places that outlast a pause or another load: ARCHITECTURE.md, decision 22.
 */
const NODE_FLAGS: Readonly<Record<string, readonly string[]>> = {
  'ztunnel/main.ts': [
    '--max-semi-space-size=2',
    '--no-parallel-scavenge',
    '--no-memory-reducer',
    '--incremental-marking-soft-trigger=25',
    '--no-allocation-site-pretenuring',
    '--expose-gc',
  ],
  'waypoint/main.ts': ['--max-semi-space-size=8', '--single-threaded-gc'],
};

/** @param node path of the Node executable inside a container. @param checkout its real path on this machine. @throws {Error} where neither image nor command says what to run */
export function resolveImage(container: Container, node: string, checkout: string): Image {
  const image = container.image ?? '';
  const args = container.args ?? [];
  const program = programs[imageName(image)];
  if (program === undefined) {
    if (container.command?.length) return { argv: [...container.command, ...args], env: {}, scripts: {} };
    throw new Error(`image ${JSON.stringify(image)} is none of the playground's, and container ${container.name} has no command`);
  }
  const flags = ['--disable-sigusr1', ...(NODE_FLAGS[program] ?? [])];
  const run = [node, ...flags, '--import', `${CHECKOUT}/playground/programs/keep-compiled.ts`, `${CHECKOUT}/${program}`];
  const argv = container.command?.length ? [...container.command, ...args] : [...run, ...args];
  const isEcho = program.includes('/echo');
  const client = `#!/bin/sh\nexec '${node}' '${CHECKOUT}/playground/programs/echo.ts' client "$@"\n`;
  const plugin =
    program !== 'cni/main.ts' ? {} : { WARREN_CNI_EXECUTABLE: existsSync(join(checkout, CNI_PLUGIN)) ? join(CHECKOUT, CNI_PLUGIN) : '' };
  return { argv, env: { NODE_COMPILE_CACHE: COMPILE_CACHE, ...plugin }, scripts: isEcho ? { '/usr/local/bin/client': client } : {} };
}

/** The last two parts of a name, without registry, tag and digest: `gcr.io/istio-release/app:1.30` is `istio-release/app`. */
export function imageName(image: string): string {
  const parts = (image.split('@')[0] ?? '').split('/');
  const last = (parts.pop() ?? '').split(':')[0] ?? '';
  const folder = parts.pop() ?? '';
  return folder === '' ? last : `${folder}/${last}`;
}
