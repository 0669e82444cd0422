/** Every table fits a terminal of 100 columns, however long names are, and loses nothing that tells rows apart; `-o wide` shows all. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { enrolledTable } from '../../../meshctl/commands/ambient.ts';
import { authzText } from '../../../meshctl/commands/authz.ts';
import { statusText } from '../../../meshctl/commands/ca.ts';
import { coverageTable } from '../../../meshctl/commands/coverage.ts';
import { edgesTable } from '../../../meshctl/commands/edges.ts';
import { statusTable } from '../../../meshctl/commands/proxy-status.ts';
import { render } from '../../../meshctl/commands/status.ts';
import { placedTable } from '../../../meshctl/commands/waypoint.ts';
import { eventLine } from '../../../meshctl/live/event-line.ts';
import { topText } from '../../../meshctl/live/top-text.ts';
import { folded, hanging, table, wrap } from '../../../meshctl/terminal.ts';
import { TABLES, waypointTable } from '../../../meshctl/waypoint-config/tables.ts';
import { allTables } from '../../../meshctl/ztunnel-config/tables.ts';

const NAMESPACE = 'a-namespace-with-a-name-of-sixty-three-characters-as-kubernetes';
const POD = 'a-deployment-with-a-rather-long-name-canary-6b8f9d7c5-x2x9z';
const HOST = `${POD}.${NAMESPACE}.svc.cluster.local`;
const IDENTITY = `spiffe://cluster.local/ns/${NAMESPACE}/sa/an-account-with-a-long-name-too`;
const TEXT = 'because of a reason that takes a whole sentence, names three objects, and would go on for longer than any line of a terminal';
const DATE = '2026-11-21T19:24:55Z';

const figures = {
  protocol: 'http',
  rate: 12345.6,
  success: 0.9999,
  p50: 1.234,
  p95: 123.4,
  p99: 61_234,
  in: 123_456_789,
  out: 9e12,
  mtls: 'partly',
} as const;
const policy = {
  action: 'CUSTOM (asks an-authorizer)',
  policy: `${NAMESPACE}/${POD}`,
  at: `waypoint ${NAMESPACE}/waypoint`,
  because: `service ${NAMESPACE}/${POD}`,
  dryRun: false,
  rules: [`from ${IDENTITY} to port 8080`, TEXT],
};

const certificate = { serialNumber: '216126173947203948172039481720394817', validFrom: DATE, expirationTime: DATE };
const ztunnel = {
  workloads: [
    {
      uid: 'u',
      name: POD,
      namespace: NAMESPACE,
      workloadIps: ['fd00:10:244:1234:5678:9abc:def0:1234', '10.244.123.123'],
      hostname: HOST,
      node: 'ip-192-168-123-123.eu-central-1.compute.internal',
      protocol: 'HBONE',
      status: 'Healthy',
      waypoint: undefined,
    },
  ],
  services: [
    {
      name: POD,
      namespace: NAMESPACE,
      hostname: HOST,
      vips: ['net/10.96.123.123', 'net/fd00:10:96::1234'],
      waypoint: { destination: 'nothing' },
      endpoints: {},
    },
  ],
  policies: [{ name: POD, namespace: NAMESPACE, action: 'Allow', scope: 'WorkloadSelector' }],
  certificates: [{ identity: IDENTITY, state: 'Available', certChain: [certificate, certificate], rootCerts: [certificate] }],
  workloadState: [
    {
      state: 'Up',
      info: { name: POD, namespace: NAMESPACE },
      connections: {
        inbound: [
          { src: '[fd00:10:244:1234:5678:9abc:def0:1234]:40112', originalDst: `${HOST}:80`, actualDst: `${HOST}:8080`, protocol: 'HBONE' },
        ],
        outbound: [],
      },
    },
  ],
};
const waypoint = {
  services: [
    {
      namespace: NAMESPACE,
      hostname: HOST,
      ports: { 80: 8080, 443: 8443, 9090: 9090 },
      waypoint: {},
      endpoints: { u: { workloadUid: 'u', port: { 80: 8080, 443: 8443 }, status: 'Healthy' } },
    },
  ],
  workloads: ztunnel.workloads,
  traffic: [
    {
      namespace: NAMESPACE,
      hostname: HOST,
      policy: { origin: `DestinationRule ${NAMESPACE}/${POD}` },
      subsets: [{ name: 'v1' }, { name: 'v2' }],
    },
  ],
  routes: [
    {
      namespace: NAMESPACE,
      hostname: HOST,
      ports: [
        {
          port: 80,
          table: [
            {
              match: {
                path: { type: { $case: 'prefix', value: `/${'long/'.repeat(20)}` } },
                headers: [{ name: 'x-version', type: { $case: 'exact', value: POD } }],
              },
              rule: 0,
            },
          ],
          rules: [
            {
              name: `HTTPRoute ${NAMESPACE}/${POD} rule 0`,
              backends: [1, 2].map((weight) => ({ weight, to: { namespace: NAMESPACE, hostname: HOST, port: 80, subset: 'v1' } })),
            },
          ],
        },
      ],
    },
  ],
  httpAuthorizations: [
    {
      namespace: NAMESPACE,
      name: POD,
      action: 1,
      targets: [{ type: { $case: 'everything' } }],
      rules: [{ from: [{ principals: [{ type: { $case: 'exact', value: IDENTITY } }] }], to: [], when: [] }],
    },
  ],
  authentications: [{ namespace: NAMESPACE, name: POD, targets: [], rules: [{ issuer: `https://${HOST}/issuer`, keys: '' }] }],
  rateLimits: [{ namespace: NAMESPACE, name: POD, targets: [], limits: [{ name: POD, requests: 100, periodMs: 60_000 }] }],
  certificates: ztunnel.certificates,
};

const screens: Readonly<Record<string, (width: number) => string>> = {
  status: (width) =>
    render(
      {
        healthy: false,
        controlPlane: { ready: 2, wanted: 2 },
        nodes: [
          { node: ztunnel.workloads[0]?.node ?? '', ztunnel: POD, version: '0.1.0-a-long-one', synced: true, agent: POD, podsEnrolled: 12 },
        ],
        namespaces: [{ namespace: NAMESPACE, podsEnrolled: 1, pods: 2 }],
        waypoints: [{ waypoint: `${NAMESPACE}/${POD}`, programmed: true, address: HOST }],
        certificates: { count: 3, soonestExpiry: DATE },
        refusals: [
          {
            code: 'POLICY_DENIED',
            policy: `${NAMESPACE}/${POD}`,
            source: `${NAMESPACE}/${POD}`,
            destination: HOST,
            count: 12,
            message: TEXT,
            timeMs: 0,
          },
        ],
        problems: [{ severity: 'error', object: `Pod ${NAMESPACE}/${POD}`, message: TEXT }],
      } as unknown as Parameters<typeof render>[0],
      false,
      width,
    ),
  'proxy-status': (width) =>
    statusTable(
      [
        {
          proxy: `${POD}.${NAMESPACE}`,
          proxy_type: 'waypoint',
          istio_version: '1.32.0-with-a-suffix',
          cluster_id: 'Kubernetes',
          istiod: POD,
          resources: Object.fromEntries(['a', 'b', 'c', 'd'].map((name) => [`x.${name}${POD}`, {}])),
        },
      ],
      width,
    ),
  coverage: (width) =>
    coverageTable(
      [
        {
          kind: 'AuthorizationPolicy',
          namespace: NAMESPACE,
          name: POD,
          rule: 'trafficPolicy.portLevelSettings[10]',
          enforced: 'in part',
          at: [],
          because: TEXT,
          services: [],
        },
      ],
      false,
      width,
    ),
  'waypoint list': (width) =>
    placedTable(['NAME', 'REVISION', 'TRAFFIC TYPE', 'PROGRAMMED', 'ADDRESS'], [[NAMESPACE, POD, 'a-canary', 'service', 'True', HOST]], {
      allNamespaces: true,
      width,
    }),
  'waypoint status': (width) =>
    placedTable(['NAME', 'STATUS', 'TYPE', 'REASON', 'MESSAGE'], [[NAMESPACE, POD, 'False', 'Programmed', 'AddressNotAssigned', TEXT]], {
      allNamespaces: true,
      width,
    }),
  'ambient list': (width) => enrolledTable([{ namespace: NAMESPACE, label: 'ambient', enrolled: 1, pods: 200, waypoint: POD }], width),
  'ca status': (width) => {
    const root = { subject: `O=${HOST}`, serial: '63f676783a7cadbce0f593dcde003988', expires: DATE };
    const rotation = { phase: 'introduced', requested: 'start', next: { step: 'switch', at: DATE }, plan: [] };
    const ca = { source: `Secret ${NAMESPACE}/istio-ca-secret`, signer: root, roots: [root], rotation, problem: TEXT };
    return statusText([{ replica: POD, page: { ca, distributed: [] }, proxies: [{ name: POD, ready: false }] }], width);
  },
  'ztunnel-config all': (width) => allTables(ztunnel, 0, true, width),
  ...Object.fromEntries(TABLES.map((name) => [`waypoint-config ${name}`, (width: number) => waypointTable(waypoint, name, width)])),
  top: (width) =>
    topText(
      {
        windowSeconds: 2,
        proxies: 3,
        missing: [],
        services: [{ service: `${NAMESPACE}/${POD}`, ...figures }],
        edges: [{ source: `${NAMESPACE}/${POD}`, destination: `${NAMESPACE}/${POD}`, ...figures }],
        refusals: [],
      },
      width,
    ),
  edges: (width) =>
    edgesTable(
      [
        {
          source: `${NAMESPACE}/${POD}`,
          destination: HOST,
          client: IDENTITY,
          server: IDENTITY,
          mtls: false,
          why: 'from outside, or its node',
          connections: 1,
        },
      ],
      width,
    ),
  authz: (width) => authzText(`${NAMESPACE}/${POD}`.slice(-40), { policies: [policy], places: ['ztunnel of node1'], silent: [] }, width),
  tap: (width) =>
    eventLine(
      {
        timeMs: 0,
        type: 'request',
        direction: 'waypoint',
        id: '',
        source: { namespace: NAMESPACE, name: POD, workload: POD, identity: IDENTITY, address: '10.0.0.1:1' },
        destination: { namespace: NAMESPACE, name: POD, workload: POD, identity: IDENTITY, address: '10.0.0.1:1' },
        port: 8080,
        mutualTls: true,
        request: { method: 'OPTIONS', path: `/${POD}`, protocol: 'HTTP/2', status: 403 },
        bytesForward: 0,
        bytesBackward: 0,
        durationMs: 1,
        code: 'POLICY_DENIED',
        policy: `${NAMESPACE}/${POD}`,
      },
      width,
    ),
};

for (const [name, screen] of Object.entries(screens)) {
  test(`${name} fits 100 columns, and is whole where somebody wants it wide`, () => {
    const narrow = screen(100).split('\n');
    for (const line of narrow) assert.ok(line.length <= 100, `${line.length} columns: ${line}`);
    const wide = screen(Infinity);
    assert.ok(!wide.includes('…'), wide);
    assert.ok(wide.includes(POD) || wide.includes(IDENTITY), 'the fixture has long names');
  });
}

test('what fits is left alone; the longest names lose their middle, and words go on in the next line', () => {
  assert.equal(table(['A', 'B'], [['x', 'y']]), 'A   B\nx   y');
  const text = table(['NAME', 'WHY'], [[`a${'-'.repeat(80)}z`, 'one two three four five six seven eight']], { width: 40 });
  const [head = '', first = '', second = ''] = text.split('\n');
  assert.match(head, /^NAME +WHY$/);
  assert.match(first, /^a-+…-+z {3}one two three four$/);
  assert.match(second, /^ +five six/);
});

test('columns that should be whole are cut last', () => {
  const [, row = ''] = table(['NAME', 'TIME'], [['n'.repeat(60), DATE]], { width: 40, whole: [1] }).split('\n');
  assert.match(row, new RegExp(`^n+…n+ {3}${DATE}$`));
});

test('text is wrapped at spaces, and a word that is too long is cut', () => {
  assert.deepEqual(wrap('aa bb cc', 5), ['aa bb', 'cc']);
  assert.deepEqual(wrap('abcdefghij', 6), ['ab…hij']);
  assert.deepEqual(hanging('  ', 'aa bb cc', 7), ['  aa bb', '  cc']);
});

test('lines that are longer than the terminal go on under their beginning, whatever colours they have', () => {
  assert.equal(folded('short\n  one two three four five', 16), 'short\n  one two three\n    four five');
  assert.equal(folded('\u001b[32mone\u001b[39m two three', 9), '\u001b[32mone\u001b[39m two\n  three');
  assert.equal(folded(`a ${'x'.repeat(30)} b`, 10), `a\n  ${'x'.repeat(30)}\n  b`, 'a word stays whole, for whoever copies it');
});
