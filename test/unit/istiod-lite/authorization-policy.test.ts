import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Authorization } from '../../../common/codec/gen/authorization.ts';
import { type AuthorizationPolicy, readAuthorizationPolicy } from '../../../istiod-lite/model/authorization-policy.ts';
import { policyJson } from '../../support/config-dump.ts';
import * as make from '../../support/kube-objects.ts';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};

function read(
  spec: Record<string, unknown>,
  o: { annotations?: Record<string, string>; namespace?: string; dryRunPolicies?: boolean } = {},
) {
  const problems: string[] = [];
  const { dryRunPolicies = false, ...meta } = o;
  const policy = readAuthorizationPolicy({ ...config, dryRunPolicies }, make.authorizationPolicy({ name: 'p', ...meta, spec }), (message) =>
    problems.push(message),
  );
  assert.ok(policy);
  return { policy, problems };
}

/** Groups of clauses of matches, in config_dump's words. */
function rules(policy: AuthorizationPolicy): unknown {
  assert.ok(policy.authorization);
  // Through bytes: what ztunnel will read.
  return policyJson(Authorization.decode(Authorization.encode(policy.authorization).finish())).rules;
}

const from = (...sources: Record<string, unknown>[]) => ({ from: sources.map((source) => ({ source })) });
const to = (...operations: Record<string, unknown>[]) => ({ to: operations.map((operation) => ({ operation })) });

test('where and for whom a policy holds is its scope', () => {
  const scope = (spec: Record<string, unknown>, namespace: string) => read(spec, { namespace }).policy.authorization?.scope;
  assert.equal(scope({}, 'istio-system'), 0);
  assert.equal(scope({}, 'shop'), 1);
  assert.equal(scope({ selector: { matchLabels: { app: 'a' } } }, 'shop'), 2);
});

test('an ALLOW rule that needs HTTP is left out, and the condition says why', () => {
  const { policy } = read({ rules: [{ ...from({ namespaces: ['a'] }), ...to({ methods: ['GET'] }) }, from({ namespaces: ['b'] })] });
  assert.deepEqual(rules(policy), [[[{ namespaces: [{ Exact: 'b' }] }]]]);
  assert.equal(policy.condition?.status, 'True');
  assert.equal(policy.condition?.reason, 'UnsupportedValue');
  assert.match(policy.condition?.message ?? '', /methods/);
});

test('a DENY rule that needs HTTP denies its L4 part, and everything where it has none', () => {
  const l7 = read({ action: 'DENY', rules: [to({ hosts: ['x.com'] })] }).policy;
  assert.deepEqual(rules(l7), [[]]);
  const mixed = read({ action: 'DENY', rules: [{ ...from({ namespaces: ['a'] }), ...to({ methods: ['POST'] }) }] }).policy;
  assert.deepEqual(rules(mixed), [[[{ namespaces: [{ Exact: 'a' }] }]]]);
});

test('one alternative of a DENY clause without an L4 part makes the whole clause hold', () => {
  const { policy } = read({ action: 'DENY', rules: [from({ namespaces: ['a'] }, { requestPrincipals: ['*'] })] });
  assert.deepEqual(rules(policy), [[]]);
});

test('without rules nothing matches; an empty rule matches everything', () => {
  assert.deepEqual(rules(read({}).policy), []);
  assert.deepEqual(rules(read({ rules: [{}] }).policy), [[]]);
});

test('conditions become clauses with values and exceptions', () => {
  const when = [
    { key: 'source.ip', values: ['10.0.0.0/8'], notValues: ['10.1.0.0/16'] },
    { key: 'destination.port', values: ['80'] },
  ];
  const { policy } = read({ rules: [{ when }] });
  assert.deepEqual(rules(policy), [[[{ sourceIps: ['10.0.0.0/8'], notSourceIps: ['10.1.0.0/16'] }], [{ destinationPorts: [80] }]]]);
});

test('a condition on a key that ztunnel does not know is an HTTP field', () => {
  const rule = { when: [{ key: 'request.headers[x]', values: ['1'] }] };
  assert.deepEqual(rules(read({ rules: [rule] }).policy), []);
  assert.deepEqual(rules(read({ action: 'DENY', rules: [rule] }).policy), [[]]);
});

test('an unreadable value makes an ALLOW match less and a DENY match more, and is a problem', () => {
  const bad = { ipBlocks: ['10.0.0.0/8', '10/33'], principals: ['p'] };
  const allow = read({ rules: [from(bad)] });
  assert.deepEqual(rules(allow.policy), [[[{ principals: [{ Exact: 'p' }], sourceIps: ['10.0.0.0/8'] }]]]);
  assert.deepEqual(allow.problems, ['ipBlocks: "10/33" cannot be read']);
  const deny = read({ action: 'DENY', rules: [from(bad)] });
  assert.deepEqual(rules(deny.policy), [[[{ principals: [{ Exact: 'p' }] }]]]);
});

test('an ALLOW whose exception cannot be read matches nothing; a DENY loses the exception', () => {
  const bad = { notIpBlocks: ['nowhere'], principals: ['p'] };
  assert.deepEqual(rules(read({ rules: [from(bad)] }).policy), [[[{}]]]);
  assert.deepEqual(rules(read({ action: 'DENY', rules: [from(bad)] }).policy), [[[{ principals: [{ Exact: 'p' }] }]]]);
});

test('an ALLOW with unreadable values only matches nothing, rather than everything', () => {
  assert.deepEqual(rules(read({ rules: [to({ ports: ['http'] })] }).policy), [[[{}]]]);
});

test('values that are no list are unreadable', () => {
  assert.deepEqual(rules(read({ rules: [from({ principals: 'p', namespaces: ['a'] })] }).policy), [[[{}]]]);
});

test('service accounts without a namespace are of the namespace of the policy', () => {
  const { policy, problems } = read({ rules: [from({ serviceAccounts: ['a', 'other/b', 'x/y/z'] })] });
  assert.deepEqual(rules(policy), [
    [
      [
        {
          serviceAccounts: [
            { namespace: 'shop', serviceAccount: 'a' },
            { namespace: 'other', serviceAccount: 'b' },
          ],
        },
      ],
    ],
  ]);
  assert.equal(problems.length, 1);
});

test('a field of a later version of the API is treated like an HTTP field', () => {
  assert.deepEqual(rules(read({ rules: [from({ trustDomains: ['td'] })] }).policy), []);
});

test('AUDIT, CUSTOM, words that nobody knows, and dry runs are refused, which the condition says', () => {
  for (const spec of [{ action: 'AUDIT' }, { action: 'CUSTOM' }, { action: 'MAYBE' }]) {
    const { policy } = read(spec);
    assert.equal(policy.authorization, undefined);
    assert.equal(policy.condition?.status, 'False');
  }
  const dry = { annotations: { 'istio.io/dry-run': 'true' } };
  assert.equal(read({ rules: [{}] }, dry).policy.condition?.status, 'False');
  assert.equal(read({ rules: [{}] }, { ...dry, dryRunPolicies: true }).policy.authorization?.dryRun, true);
  assert.equal(read({ rules: [{}] }, { annotations: { 'istio.io/dry-run': 'false' } }).policy.authorization?.dryRun, false);
});

test('a policy that names its targets is nothing for ztunnel and gets no condition of it', () => {
  const { policy } = read({ targetRefs: [{ kind: 'Service', name: 'web' }], rules: [{}] });
  assert.equal(policy.authorization, undefined);
  assert.equal(policy.condition, undefined);
});
