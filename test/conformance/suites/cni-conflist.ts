/**
 * The CNI plugin in a node's configuration: what the installer makes of one file (cni/pkg/install/testdata), and which of several files it
 * chooses, what becomes of it, and what is left after an uninstall (cni/test/testdata). In a folder of its own, with the real files.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chain, notANetwork, type PluginOptions, standalone, unchain } from '../../../cni/conflist/conflist.ts';
import { type Form, install, uninstall } from '../../../cni/conflist/install.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite } from '../suite.ts';

const FOLDER = 'istio/cni';
const INSTALL = 'pkg/install/testdata';
const FILES = 'test/testdata';

/** As Istio's unit tests of the installer configure it. */
const unit: PluginOptions = {
  logLevel: 'debug',
  agentRunDir: '/path/to/kubeconfig',
  ambientEnabled: false,
  selectors: [],
  excludeNamespaces: undefined,
  podNamespace: 'my-namespace',
  nativeNftables: false,
  detectionRetry: false,
};
/** And its tests of a whole installation. */
const whole: PluginOptions = { ...unit, agentRunDir: '/tmp', excludeNamespaces: ['istio-system'], podNamespace: '' };

export const suite: Suite = {
  suite: FOLDER,
  *run(cases: Cases): Iterable<CaseResult> {
    const read = (path: string): string => readFileSync(cases.fixture(join(FOLDER, path)), 'utf8');
    if (cases.has(join(FOLDER, INSTALL))) yield* oneFile((name) => read(join(INSTALL, name)));
    if (cases.has(join(FOLDER, FILES))) yield* manyFiles((name) => read(join(FILES, name)));
  },
};

function* oneFile(read: (name: string) => string): Iterable<CaseResult> {
  const owned = { ...unit, ambientEnabled: true };
  for (const [before, after, options] of [
    ['bridge.conf', 'bridge.conf.golden', unit],
    ['list.conflist', 'list.conflist.golden', unit],
    ['list-with-istio.conflist', 'list-with-istio.conflist.golden', unit],
    ['list.conflist', 'istio-owned.conflist.golden', owned],
    ['bridge.conf', 'istio-owned-bridge.conflist.golden', owned],
  ] as const) {
    const name = `${INSTALL}/${after.replace(/\.golden$/, '')}`;
    yield attempt(name, () => compare(name, chain(read(before), options), read(after), 'file'));
  }
  const alone = `${INSTALL}/istio-cni.conf`;
  yield attempt(alone, () => compare(alone, standalone(unit), read('istio-cni.conf'), 'file'));
  const removed = `${INSTALL}/list-no-istio.conflist`;
  yield attempt(removed, () => compare(removed, unchain(read('list-with-istio.conflist')), read('list-no-istio.conflist'), 'file'));
  for (const file of ['invalid-arr.conflist', 'invalid-map.conflist']) {
    const name = `${INSTALL}/${file}`;
    yield attempt(name, () => compare(name, [notANetwork(file, read(file)) !== undefined, refuses(read(file))], [true, true], 'refused'));
  }
}

const CALICO = { result: 'calico.conflist', expected: 'expected/10-calico.conflist-istioconfig', clean: 'pre/calico.conflist' };
const MINIKUBE = {
  result: 'minikube_cni.conflist',
  expected: 'expected/minikube_cni.conflist.expected',
  clean: 'expected/minikube_cni.conflist.clean',
};

interface Sequence {
  readonly files: readonly string[];
  /** Index of the file that is chained to. */
  readonly chosen: number;
  /** The setting that names a file. */
  readonly file?: string;
  readonly result: string;
  readonly expected: string;
  readonly clean: string;
}

/** The order of the files is that of their names: they get numbers. */
function* manyFiles(read: (name: string) => string): Iterable<CaseResult> {
  const sequences: readonly Sequence[] = [
    { files: ['calico.conflist'], ...CALICO, chosen: 0 },
    { files: ['calico.conflist'], ...CALICO, chosen: 0, file: '00-calico.conflist' },
    { files: ['calico.conflist'], ...CALICO, chosen: 0, file: '00-calico.conf' },
    { files: ['minikube_cni.conf'], ...MINIKUBE, chosen: 0, file: '00-minikube_cni.conf' },
    { files: ['calico.conflist', 'minikube_cni.conf'], ...CALICO, chosen: 0 },
    { files: ['minikube_cni.conf', 'calico.conflist'], ...MINIKUBE, chosen: 0 },
    { files: ['non_json.conf', 'minikube_cni.conf', 'calico.conflist'], ...MINIKUBE, chosen: 1 },
    { files: ['non_json.conf', 'calico.conflist', 'minikube_cni.conf'], ...CALICO, chosen: 1 },
    { files: ['bad_minikube_cni.conf', 'minikube_cni.conf', 'calico.conflist'], ...MINIKUBE, chosen: 1 },
    { files: ['bad_minikube_cni.conf', 'calico.conflist', 'minikube_cni.conf'], ...CALICO, chosen: 1 },
    { files: ['noname_calico.conflist', 'noplugins_calico.conflist', 'minikube_cni.conf', 'calico.conflist'], ...MINIKUBE, chosen: 2 },
    { files: ['noname_calico.conflist', 'noplugins_calico.conflist', 'calico.conflist', 'minikube_cni.conf'], ...CALICO, chosen: 2 },
  ];
  for (const { files, chosen, file = '', ...outcome } of sequences) {
    const name = `${FILES}/${file === '' ? '' : `${file}: `}${files.join(', ')}`;
    yield attempt(name, () =>
      installInto(name, files, { ...outcome, result: `0${chosen}-${outcome.result}` }, { form: 'chained', file }, read),
    );
  }
  const alone = `${FILES}/YYY-istio-cni.conf`;
  yield attempt(alone, () => compare(alone, standalone(whole), read('expected/YYY-istio-cni.conf'), 'file'));
  const unversioned = `${FILES}/nover_calico.conflist`;
  // No version means the oldest; libcni takes it.
  yield attempt(unversioned, () =>
    compare(unversioned, notANetwork('nover_calico.conflist', read('pre/nover_calico.conflist')), undefined),
  );
  yield {
    case: `${FILES}/ZZZ-istio-cni-kubeconfig`,
    verdict: 'skip',
    reason: 'our plugin asks the agent and never the API server, so no credentials lie on the node',
  };
}

function installInto(
  name: string,
  files: readonly string[],
  { result, expected, clean }: { readonly result: string; readonly expected: string; readonly clean: string },
  form: Form,
  read: (name: string) => string,
): CaseResult {
  const root = mkdtempSync(join(tmpdir(), 'warren-conflist-'));
  const folder = join(root, 'net.d');
  try {
    mkdirSync(folder);
    files.forEach((file, i) => {
      writeFileSync(join(folder, `0${i}-${file}`), read(`pre/${file}`));
    });
    const { path } = install(folder, form, whole);
    const after = JSON.parse(readFileSync(join(folder, result), 'utf8'));
    const again = install(folder, form, whole).changed;
    uninstall(folder, form);
    const rest = JSON.parse(readFileSync(join(folder, result), 'utf8'));
    return compare(
      name,
      { path, after, again, rest, files: readdirSync(folder).length },
      {
        path: join(folder, result),
        after: JSON.parse(read(expected)),
        again: false,
        rest: JSON.parse(read(clean)),
        files: files.length,
      },
      'installation',
    );
  } finally {
    rmSync(root, { recursive: true });
  }
}

function refuses(text: string): boolean {
  try {
    chain(text, unit);
    return false;
  } catch {
    return true;
  }
}
