/**
 * Where the cases of a mesh run: in a playground, or on real Kubernetes with the mesh installed from its images (`scripts/conformance
 * --kubernetes`). Either has the echo program under the names of the images that the cases' manifests ask for.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import yaml from 'js-yaml';
import { startCluster, withoutCluster } from '../support/cluster.ts';
import { imageBundle } from '../support/image-bundle.ts';
import type { KubeCommands } from '../support/kube-commands.ts';
import { root, startPlayground, withoutPlayground } from '../support/playground.ts';
import type { Cases } from './suite.ts';

export interface MeshCluster extends KubeCommands {
  /** A manifest with images that this cluster has. */
  manifest(path: string): string;
}

export interface MeshClusterOptions {
  readonly cases: Cases;
  /** Called with what ends what was started. */
  readonly onEnd: (ending: () => Promise<void> | void) => void;
}

/** undefined where such a cluster can run; the reason to skip otherwise. */
export const withoutMesh = (kubernetes: boolean): string | undefined => (kubernetes ? withoutCluster : withoutPlayground);

const DEFINITIONS = 'gateway-api/config/crd/experimental';
/** The playground knows the suite's echo image by name; a cluster has what was loaded into it. */
const ECHO = /echo-advanced|istio-release\/app|istio\/app/;
/** Folder of the certificate that the manifests expect in the image's root. */
const CERTIFICATE = '/etc/echo';

/** With the mesh installed, and ready. */
export async function startMesh({ cases, onEnd }: MeshClusterOptions): Promise<MeshCluster> {
  const context = { after: onEnd, diagnostic: (line: string) => console.log(`# ${line}`) } as unknown as TestContext;
  const read = (path: string): string => readFileSync(path, 'utf8');
  if (!cases.kubernetes) return { ...(await startPlayground(context, { mesh: true })), manifest: read };
  const cluster = await startCluster(context, { nodes: 2, images: [await imageBundle(context)] });
  // Redirects by 303, 307 and 308 are in the experimental definitions alone.
  const kinds = [
    'gatewayclasses',
    'gateways',
    'httproutes',
    'grpcroutes',
    'tcproutes',
    'tlsroutes',
    'referencegrants',
    'backendtlspolicies',
  ];
  const files = kinds.map((kind) => cases.fixture(`${DEFINITIONS}/gateway.networking.k8s.io_${kind}.yaml`));
  await cluster.kubectl('apply', '--server-side', ...files.flatMap((file) => ['-f', file]));
  await cluster.meshctl('install');
  const { version } = JSON.parse(read(join(root, 'package.json'))) as { version: string };
  const tls = selfSigned();
  const adapted = (path: string): string =>
    (yaml.loadAll(read(path)) as (KubeObject | null)[])
      .flatMap((object) => (object === null ? [] : withEcho(object, `warren/echo:${version}`, tls)))
      .map((object) => `---\n${JSON.stringify(object)}\n`)
      .join('');
  return { ...cluster, manifest: adapted };
}

interface KubeObject {
  readonly kind?: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly spec?: { readonly template?: { readonly spec: { readonly containers: readonly Container[] } } };
}

interface Container {
  readonly image: string;
  readonly args?: readonly string[];
}

/** Our image in the place of the suite's, and the certificate that the suite's has in it. */
function withEcho(object: KubeObject, image: string, tls: Readonly<Record<string, string>>): object[] {
  const pod = object.kind === 'Deployment' ? object.spec?.template?.spec : undefined;
  if (!pod?.containers.some((container) => ECHO.test(container.image))) return [object];
  const containers = pod.containers.map((container) => ({
    ...container,
    image,
    args: (container.args ?? []).map((arg) => arg.replace(/=\/cert\.(?:crt|key)$/, (file) => `=${CERTIFICATE}/tls${file.slice(6)}`)),
    volumeMounts: [{ name: 'certificate', mountPath: CERTIFICATE }],
  }));
  const volumes = [{ name: 'certificate', secret: { secretName: 'echo-certificate' } }];
  const template = { ...object.spec?.template, spec: { ...pod, containers, volumes } };
  const { namespace = 'default' } = object.metadata;
  const secret = {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'echo-certificate', namespace },
    type: 'kubernetes.io/tls',
    stringData: tls,
  };
  return [secret, { ...object, spec: { ...object.spec, template } }];
}

function selfSigned(): Record<string, string> {
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-'));
  const [certificate, key] = [join(folder, 'certificate'), join(folder, 'key')];
  try {
    const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30', '-subj', '/CN=*'];
    execFileSync('openssl', [...made, '-keyout', key, '-out', certificate], { stdio: 'ignore' });
    return { 'tls.crt': readFileSync(certificate, 'utf8'), 'tls.key': readFileSync(key, 'utf8') };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
