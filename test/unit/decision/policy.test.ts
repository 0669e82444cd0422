import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { SpiffeId } from '../../../common/base/spiffe.ts';
import type { Policy, PolicyMatch } from '../../../common/decision/mesh-view.ts';
import { decidePolicy, type PolicyInput, policyMatches, policySubject, stringMatches } from '../../../common/decision/policy.ts';
import { cidr, match, policy, workload } from '../../support/builders.ts';
import { meshes } from '../../support/meshes.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';

const frontend: SpiffeId = { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'frontend' };

const call = (fields: Partial<PolicyInput> = {}): PolicyInput => ({
  source: { ip: '10.0.0.1', port: 40000 },
  identity: frontend,
  destination: { ip: '10.0.0.2', port: 8080 },
  ...fields,
});

const holds = (fields: Partial<PolicyMatch>, input = call()): boolean =>
  policyMatches(policy({ name: 'p', groups: [[[match(fields)]]] }), policySubject(input));

const mtlsOnly = policy({
  name: 'istio_converted_static_strict',
  namespace: 'istio-system',
  scope: 'WORKLOAD_SELECTOR',
  action: 'DENY',
  groups: [[[match({ notPrincipals: [{ presence: true }] })]]],
});

describe('a match', () => {
  const cases: readonly (readonly [name: string, fields: Partial<PolicyMatch>, yes: PolicyInput, no: PolicyInput])[] = [
    ['namespaces', { namespaces: [{ exact: 'a' }, { prefix: 'sh' }] }, call(), call({ identity: { ...frontend, namespace: 'other' } })],
    ['principals', { principals: [{ suffix: '/sa/frontend' }] }, call(), call({ identity: { ...frontend, serviceAccount: 'x' } })],
    [
      'service accounts, whatever the trust domain',
      { serviceAccounts: [{ namespace: 'shop', serviceAccount: 'frontend' }] },
      call({ identity: { ...frontend, trustDomain: 'elsewhere' } }),
      call({ identity: { ...frontend, namespace: 'legacy' } }),
    ],
    ['source ranges', { sourceIps: [cidr('10.0.0.0/30')] }, call(), call({ source: { ip: '10.0.0.4', port: 1 } })],
    ['destination ranges', { destinationIps: [cidr('10.0.0.2/32')] }, call(), call({ destination: { ip: 'fd00::2', port: 8080 } })],
    ['IPv6 ranges', { sourceIps: [cidr('fd00::/8')] }, call({ source: { ip: 'fd12::1', port: 1 } }), call()],
    ['destination ports', { destinationPorts: [80, 8080] }, call(), call({ destination: { ip: '10.0.0.2', port: 8081 } })],
    ['mutual TLS at all', { principals: [{ presence: true }] }, call(), call({ identity: undefined })],
  ];
  for (const [name, fields, yes, no] of cases) {
    test(`by ${name} holds for its own and for no others`, () => {
      assert.equal(holds(fields, yes), true);
      assert.equal(holds(fields, no), false);
    });
  }

  const negatives: readonly (readonly [keyof PolicyMatch, Partial<PolicyMatch>])[] = [
    ['notNamespaces', { notNamespaces: [{ exact: 'shop' }] }],
    ['notPrincipals', { notPrincipals: [{ prefix: 'cluster.local/' }] }],
    ['notServiceAccounts', { notServiceAccounts: [{ namespace: 'shop', serviceAccount: 'frontend' }] }],
    ['notSourceIps', { notSourceIps: [cidr('10.0.0.1/32')] }],
    ['notDestinationIps', { notDestinationIps: [cidr('10.0.0.0/8')] }],
    ['notDestinationPorts', { notDestinationPorts: [8080] }],
  ];
  for (const [name, fields] of negatives) {
    test(`with ${name} holds for a caller that it does not name`, () => {
      assert.equal(holds(fields), false);
      const other = call({
        identity: { trustDomain: 'td', namespace: 'x', serviceAccount: 'y' },
        source: { ip: '192.0.2.1', port: 1 },
        destination: { ip: '192.0.2.2', port: 1 },
      });
      assert.equal(holds(fields, other), true);
    });
  }

  test('without identity no positive field about identity holds, and every negative one does', () => {
    const plaintext = call({ identity: undefined });
    assert.equal(holds({ namespaces: [{ exact: '' }] }, plaintext), false);
    assert.equal(holds({ principals: [{ prefix: '' }] }, plaintext), false);
    assert.equal(holds({ notPrincipals: [{ prefix: '' }] }, plaintext), true);
    assert.equal(holds({ notNamespaces: [{ exact: 'shop' }] }, plaintext), true);
  });

  test('holds only when all of its fields do', () => {
    assert.equal(holds({ destinationPorts: [8080], namespaces: [{ exact: 'shop' }] }), true);
    assert.equal(holds({ destinationPorts: [8080], namespaces: [{ exact: 'legacy' }] }), false);
    assert.equal(holds({ destinationPorts: [8080], notDestinationPorts: [8080] }), false);
  });

  test('without any field never holds', () => {
    assert.equal(holds({}), false);
  });

  test('of a principal sees the identity without its scheme', () => {
    assert.equal(holds({ principals: [{ exact: 'cluster.local/ns/shop/sa/frontend' }] }), true);
    assert.equal(holds({ principals: [{ exact: 'spiffe://cluster.local/ns/shop/sa/frontend' }] }), false);
  });

  test('of texts is case-sensitive', () => {
    assert.equal(stringMatches({ exact: 'Shop' }, 'shop'), false);
    assert.equal(stringMatches({ presence: true }, ''), false);
  });
});

describe('a policy', () => {
  const ports = (port: number): PolicyMatch => match({ destinationPorts: [port] });
  const subject = policySubject(call());

  test('without groups matches nothing', () => {
    assert.equal(policyMatches(policy({ name: 'p', groups: [] }), subject), false);
  });

  test('with a rule without matches, or a group without rules, matches everything', () => {
    assert.equal(policyMatches(policy({ name: 'p', groups: [[[]]] }), subject), true);
    assert.equal(policyMatches(policy({ name: 'p', groups: [[]] }), subject), true);
  });

  test('needs any group, of it all rules, of each any match', () => {
    const groups = (...value: number[][][]): Policy =>
      policy({ name: 'p', groups: value.map((rules) => rules.map((rule) => rule.map(ports))) });
    assert.equal(policyMatches(groups([[1], [8080]], [[2]]), subject), false);
    assert.equal(policyMatches(groups([[1, 8080], [8080]]), subject), true);
    assert.equal(policyMatches(groups([[1]], [[8080]]), subject), true);
  });
});

for (const [kind, meshOf] of Object.entries(meshes)) {
  describe(`a verdict (${kind} mesh)`, () => {
    const local = workload({ name: 'payments', authorizationPolicies: ['istio-system/istio_converted_static_strict', 'shop/selected'] });
    const decide = (policies: readonly Policy[], input = call()): ReturnType<typeof decidePolicy> =>
      decidePolicy(meshOf({ policies, workloads: [local] }), local, input);
    const everything = [[[match({ notDestinationPorts: [1] })]]];
    const nothing = [[[match({ destinationPorts: [1] })]]];

    test('without policies allows', () => {
      const { allowed, policy: by, code } = decide([]);
      assert.deepEqual([allowed, by, code], [true, undefined, undefined]);
    });

    test('of a DENY that matches names it, and no ALLOW overrules it', () => {
      const verdict = decide([policy({ name: 'yes', groups: everything }), policy({ name: 'no', action: 'DENY', groups: everything })]);
      assert.equal(verdict.allowed, false);
      assert.equal(verdict.policy, 'shop/no');
      assert.equal(verdict.reason, 'explicitly denied by: shop/no');
      assert.equal(verdict.code, 'POLICY_DENIED');
    });

    test('of ALLOW policies of which none matches refuses and names them', () => {
      const verdict = decide([policy({ name: 'only', groups: nothing })]);
      assert.deepEqual([verdict.allowed, verdict.policy, verdict.code], [false, 'shop/only', 'POLICY_DENIED']);
      assert.match(verdict.reason, /^allow policies exist, but none allowed: shop\/only$/);
      const two = decide([policy({ name: 'a', groups: nothing }), policy({ name: 'b', groups: nothing })]);
      assert.equal(two.policy, undefined);
      assert.match(two.reason, /shop\/a/);
      assert.match(two.reason, /shop\/b/);
    });

    test('an ALLOW without rules denies everything in its scope, a DENY without rules nothing', () => {
      assert.equal(decide([policy({ name: 'empty' })]).allowed, false);
      assert.equal(decide([policy({ name: 'empty', action: 'DENY' })]).allowed, true);
    });

    test('one ALLOW that matches is enough', () => {
      const verdict = decide([policy({ name: 'a', groups: nothing }), policy({ name: 'b', groups: everything })]);
      assert.deepEqual([verdict.allowed, verdict.policy], [true, 'shop/b']);
    });

    test('counts policies of the mesh, of the own namespace and of the workload, and no others', () => {
      const deny = (fields: Partial<Policy>): boolean =>
        decide([policy({ name: 'selected', action: 'DENY', groups: everything, ...fields })]).allowed;
      assert.equal(deny({ scope: 'GLOBAL', namespace: 'istio-system' }), false);
      assert.equal(deny({ scope: 'NAMESPACE' }), false);
      assert.equal(deny({ scope: 'WORKLOAD_SELECTOR' }), false);
      assert.equal(deny({ scope: 'NAMESPACE', namespace: 'legacy' }), true);
      assert.equal(deny({ scope: 'WORKLOAD_SELECTOR', name: 'other' }), true);
    });

    test('of STRICT against plaintext is "mutual TLS required", and STRICT lets mutual TLS pass', () => {
      const verdict = decide([mtlsOnly], call({ identity: undefined }));
      assert.deepEqual([verdict.allowed, verdict.code], [false, 'MTLS_REQUIRED']);
      assert.equal(verdict.reason, 'explicitly denied by: istio-system/istio_converted_static_strict');
      assert.equal(decide([mtlsOnly]).allowed, true);
    });

    test('dry-run policies are told about and count for nothing', () => {
      const verdict = decide([
        policy({ name: 'trial', action: 'DENY', dryRun: true, groups: everything }),
        policy({ name: 'trial-allow', dryRun: true, groups: nothing }),
      ]);
      assert.equal(verdict.allowed, true);
      assert.deepEqual(
        [...verdict.dryRun].sort((a, b) => a.policy.localeCompare(b.policy)),
        [
          { policy: 'shop/trial', matched: true },
          { policy: 'shop/trial-allow', matched: false },
        ],
      );
    });

    test('tells of policies that the workload names and nobody sent', () => {
      assert.deepEqual(decide([]).missing, ['istio-system/istio_converted_static_strict', 'shop/selected']);
      assert.deepEqual(decide([mtlsOnly]).missing, ['shop/selected']);
    });
  });
}

describe('in general', () => {
  test('adding a DENY policy never allows more, adding an ALLOW to others never less', () => {
    const matches = fc
      .record({ port: fc.constantFrom(80, 8080), namespace: fc.constantFrom('shop', 'legacy') })
      .map(({ port, namespace }) => match({ destinationPorts: [port], namespaces: [{ exact: namespace }] }));
    const policies = fc.record({
      action: fc.constantFrom('ALLOW' as const, 'DENY' as const),
      groups: fc.array(fc.array(fc.array(matches, { maxLength: 2 }), { maxLength: 2 }), { maxLength: 2 }),
    });
    const local = workload({ name: 'w' });
    const allowed = (list: readonly Pick<Policy, 'action' | 'groups'>[]): boolean => {
      const named = list.map((fields, i) => policy({ name: `p${i}`, ...fields }));
      return decidePolicy(new PlainMesh({ policies: named }), local, call()).allowed;
    };
    fc.assert(
      fc.property(fc.array(policies, { maxLength: 4 }), policies, (list, extra) => {
        const before = allowed(list);
        const after = allowed([...list, extra]);
        if (extra.action === 'DENY') assert.ok(before || !after);
        else if (list.some(({ action }) => action === 'ALLOW')) assert.ok(!before || after);
      }),
      { numRuns: 200 },
    );
  });
});
