/**
 * Makes what is generated and committed: protobuf code, the documentation of settings, metrics and errors, and manifests. `node scripts/generate.ts`
 * writes; scripts/test compares, so that what is committed is what the sources say.
 */
import { spawnSync } from 'node:child_process';
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { generatedCrds } from './crds.ts';
import { generatedDocs } from './docs.ts';
import { findHelm, MANIFEST_FILE, renderManifest } from './manifest.ts';

const PROTO_OUT = 'common/codec/gen';

/** @returns one line for each committed file that differs from what the sources make */
export function checkGenerated(root: string): string[] {
  const made = makeAll(root);
  const committed = globSync(`${PROTO_OUT}/**/*.ts`, { cwd: root });
  return [
    ...[...made]
      .filter(([path, text]) => read(join(root, path)) !== text)
      .map(([path]) => `${path} is not what its source makes: run scripts/node scripts/generate.ts`),
    ...committed.filter((path) => !made.has(path)).map((path) => `${path} has no source any more`),
  ];
}

function makeAll(root: string): Map<string, string> {
  return new Map([...protobuf(root), ...generatedDocs(), ...generatedCrds()]);
}

function protobuf(root: string): [string, string][] {
  const out = mkdtempSync(join(tmpdir(), 'warren-proto-'));
  try {
    const bin = join(root, 'node_modules/.bin');
    const template = readFileSync(join(root, 'proto/buf.gen.yaml'), 'utf8')
      .replace('../node_modules/.bin', bin)
      .replace(`../${PROTO_OUT}`, out);
    const env = { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` };
    const { status, stderr } = spawnSync(join(bin, 'buf'), ['generate', '--template', template], {
      cwd: join(root, 'proto'),
      encoding: 'utf8',
      env,
    });
    if (status !== 0) throw new Error(`buf generate failed: ${stderr}`);
    return globSync('**/*.ts', { cwd: out }).map((path) => [join(PROTO_OUT, path), readFileSync(join(out, path), 'utf8')]);
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Missing is one way of being different.
    return undefined;
  }
}

if (import.meta.main) {
  const root = join(import.meta.dirname, '..');
  const helm = findHelm(root, process.env);
  // Only Helm can render the chart; test/mesh/chart.test.ts compares, and installs Helm where there is none.
  if (!helm) console.error(`${MANIFEST_FILE} is left as it is: no helm here (scripts/helm version installs one)`);
  const rendered = helm ? ([[MANIFEST_FILE, renderManifest(root, helm)]] as const) : [];
  for (const [path, text] of [...makeAll(root), ...rendered]) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
    console.log(path);
  }
}
