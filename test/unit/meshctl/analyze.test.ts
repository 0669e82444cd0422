/** `meshctl analyze` without a cluster, as a pipeline runs it; and the page about it, followed word by word. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import yaml from 'js-yaml';
import { KubeApiError, type KubeObject } from '../../../common/client/kube-api.ts';
import { type AnalyzeFlags, analyzeCommand } from '../../../meshctl/analyze/command.ts';
import { readDocuments } from '../../../meshctl/analyze/documents.ts';
import { liveObjects } from '../../../meshctl/analyze/live.ts';
import { FakeKubeApi } from '../../support/fake-kube-api.ts';
import { root } from '../../support/manifests.ts';

const FLAGS: AnalyzeFlags = {
  listAnalyzers: false,
  useKube: false,
  color: true,
  verbose: false,
  failureThreshold: 'Error',
  outputThreshold: 'Info',
  output: 'log',
  allNamespaces: false,
  suppress: [],
  timeout: '30s',
  recursive: false,
  ignoreUnknown: false,
  revision: 'default',
  analyzer: [],
};

interface Ran {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

async function run(
  files: readonly string[],
  flags: Partial<AnalyzeFlags> = {},
  o: { stdin?: string; kubeconfig?: string } = {},
): Promise<Ran> {
  const [out, err]: [string[], string[]] = [[], []];
  const connection = { systemNamespace: 'istio-system', env: {}, ...(o.kubeconfig && { kubeconfig: o.kubeconfig }) };
  const status = await analyzeCommand(files, { ...FLAGS, ...flags }, connection, {
    isTerminal: false,
    stdin: () => o.stdin ?? '',
    out: (text) => out.push(text),
    err: (text) => err.push(text),
  });
  return { status, out: out.join('\n'), err: err.join('\n') };
}

const DENY_ALL = `
kind: AuthorizationPolicy
apiVersion: security.istio.io/v1
metadata: { name: p, namespace: shop }
spec: { rules: [{ to: [{ operation: { methods: [GET] } }] }] }
`;

function folder(t: TestContext, files: Readonly<Record<string, string>>): string {
  const path = mkdtempSync(join(tmpdir(), 'warren-analyze-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(path, name)), { recursive: true });
    writeFileSync(join(path, name), content);
  }
  return path;
}

test('the page about analysis says what the program does', async (t) => {
  const path = folder(t, {});
  const before = process.cwd();
  process.chdir(path);
  t.after(() => process.chdir(before));
  const page = readFileSync(join(root, 'docs/analyze.md'), 'utf8');
  let followed = 0;
  for (const [, language, block = ''] of page.matchAll(/```(\w+)\n(.*?)```/gs)) {
    if (language === 'yaml') {
      const name = /^# (\S+)\n/.exec(block)?.[1] ?? '';
      mkdirSync(dirname(name), { recursive: true });
      writeFileSync(name, block);
    }
    if (language !== 'console') continue;
    const [command = '', ...shown] = block.trimEnd().split('\n');
    const status = Number(shown.pop());
    assert.equal(shown.pop(), '$ echo $?');
    const threshold = /--failure-threshold (\w+)/.exec(command)?.[1];
    const ran = await run(['shop'], threshold ? { failureThreshold: threshold } : {});
    assert.equal([ran.out, ran.err].join('\n'), shown.join('\n'), command);
    assert.equal(ran.status, status);
    followed++;
  }
  assert.equal(followed, 2);
  // "nothing is left and the exit status is 0"
  writeFileSync(
    'shop/app.yaml',
    readFileSync('shop/app.yaml', 'utf8').replace('mode: ambient', 'mode: ambient, istio.io/use-waypoint: waypoint'),
  );
  assert.deepEqual(await run(['shop'], { failureThreshold: 'Info' }), {
    status: 0,
    out: '',
    err: '✔ No validation issues found when analyzing shop/app.yaml, shop/policy.yaml, shop/waypoint.yaml.',
  });
});

test('exit statuses are istioctl’s', async (t) => {
  const path = folder(t, { 'deny.yaml': DENY_ALL, 'broken.yaml': 'kind: [', 'values.yaml': 'replicas: 3' });
  const deny = join(path, 'deny.yaml');
  assert.equal((await run([deny])).status, 79);
  assert.equal((await run([deny], { output: 'json' })).status, 0);
  assert.equal((await run([deny], { suppress: ['WRN0203=AuthorizationPolicy p.shop'] })).status, 0);
  assert.equal((await run([deny], { suppress: ['WRN0203=AuthorizationPolicy *.shop'], failureThreshold: 'Warning' })).status, 79);
  assert.equal((await run([join(path, 'broken.yaml')])).status, 65);
  assert.equal((await run([join(path, 'values.yaml')])).status, 65);
  assert.equal((await run([join(path, 'values.yaml')], { ignoreUnknown: true })).status, 0);
  assert.equal((await run([deny], { failureThreshold: 'Fatal' })).status, 64);
  assert.equal((await run([deny], { output: 'wide' })).status, 64);
  assert.equal((await run([deny], { suppress: ['WRN0203'] })).status, 64);
  assert.equal((await run([deny], { analyzer: ['none.Such'] })).status, 64);
  assert.equal((await run([join(path, 'absent.yaml')])).status, 1);
  assert.equal((await run([])).status, 64);
});

test('messages come as lines, JSON and YAML with istioctl’s fields, of the level that is asked for', async () => {
  const stdin = DENY_ALL;
  const { out } = await run(['-'], { output: 'json', outputThreshold: 'Error' }, { stdin });
  const expected = [
    {
      code: 'WRN0203',
      documentationUrl: 'docs/analyze.md#wrn0203',
      level: 'Error',
      message: 'none of its rules can match at ztunnels, so it allows nothing: everything is refused',
      origin: 'AuthorizationPolicy shop/p',
      reference: '-:2',
    },
  ];
  assert.deepEqual(JSON.parse(out), expected);
  assert.deepEqual(yaml.load((await run(['-'], { output: 'yaml', outputThreshold: 'Error' }, { stdin })).out), expected);
  assert.equal((await run(['-'], { output: 'json', namespace: 'other' }, { stdin })).out, '[]');
});

test('analyzers can be listed and chosen', async () => {
  const { out, status } = await run([], { listAnalyzers: true });
  assert.equal(status, 0);
  assert.match(out, /^\* mesh\.Translation:$/m);
  const chosen = await run(['-'], { analyzer: ['policy.Selectors'] }, { stdin: DENY_ALL });
  assert.match(chosen.out, /^Warning \[IST0127\] \(AuthorizationPolicy shop\/p -:2\) [^\n]*$/);
  assert.equal(chosen.status, 0);
});

test('objects of another revision are another control plane’s', async () => {
  const stdin = DENY_ALL.replace('namespace: shop', 'namespace: shop, labels: { istio.io/rev: canary }');
  assert.equal((await run(['-'], {}, { stdin })).status, 0);
  assert.equal((await run(['-'], { revision: 'canary' }, { stdin })).status, 79);
});

test('each document has the line on which it begins, and one that cannot be read does not take the others with it', () => {
  const content =
    '# first\nkind: A\napiVersion: v1\nmetadata: { name: a }\n---\n\n---   # b\nkind: [\n---\nkind: List\napiVersion: v1\nitems:\n- { kind: C, apiVersion: v1, metadata: { name: c } }\n- 7\n--- {kind: D, apiVersion: v1, metadata: {name: d}}\n';
  const { documents, problems } = readDocuments('f.yaml', content);
  assert.deepEqual(
    documents.map(({ value, line }) => `${value.kind}:${line}`),
    ['A:2', 'C:10', 'D:15'],
  );
  assert.equal(problems.length, 2);
  assert.match(problems[0] ?? '', /^f\.yaml:8: /);
  assert.equal(problems[1], 'f.yaml:10: is no object of Kubernetes');
});

test('a few lines that stand for gigabytes are refused', () => {
  const levels = Array.from({ length: 9 }, (_, i) => `l${i + 1}: &l${i + 1} [${Array(10).fill(`*l${i}`).join(', ')}]`);
  const { documents, problems } = readDocuments('bomb.yaml', `l0: &l0 [${Array(10).fill('x').join(', ')}]\n${levels.join('\n')}`);
  assert.deepEqual(documents, []);
  assert.match(problems[0] ?? '', /^bomb\.yaml:1: more than 1000000 values/);
});

test('a cluster is read with what it has, and what may not be listed ends the analysis', async (t) => {
  const kube = await FakeKubeApi.start(t);
  kube.put('/apis/security.istio.io/v1/authorizationpolicies', yaml.load(DENY_ALL) as KubeObject);
  const objects = await liveObjects(kube.client('admin'));
  assert.deepEqual(
    objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`),
    ['AuthorizationPolicy p'],
  );
  const forbidden = { list: () => Promise.reject(new KubeApiError(403, 'Forbidden', 'no')) };
  await assert.rejects(liveObjects(forbidden), { status: 403 });
});
