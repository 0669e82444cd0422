import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import yaml from 'js-yaml';

const root = join(import.meta.dirname, '../../..');

interface Container {
  readonly name: string;
  readonly env?: readonly { readonly name: string }[];
  readonly securityContext?: {
    readonly privileged?: boolean;
    readonly readOnlyRootFilesystem?: boolean;
    readonly allowPrivilegeEscalation?: boolean;
    readonly runAsUser?: number;
    readonly capabilities?: { readonly drop?: readonly string[]; readonly add?: readonly string[] };
  };
}

interface Workload {
  readonly kind: string;
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly hostPID?: boolean;
        readonly hostIPC?: boolean;
        readonly securityContext?: { readonly runAsUser?: number; readonly seccompProfile?: { readonly type?: string } };
        readonly containers: readonly Container[];
        readonly initContainers?: readonly Container[];
      };
    };
  };
}

/** docs/security-model.md says why each. Whoever adds one says it there, and here. */
const CAPABILITIES: Readonly<Record<string, readonly string[]>> = {
  discovery: [],
  'istio-proxy': ['NET_ADMIN', 'SYS_ADMIN'],
  'install-cni': ['DAC_OVERRIDE', 'NET_ADMIN', 'NET_RAW', 'SYS_ADMIN', 'SYS_PTRACE'],
};

const workloads = (yaml.loadAll(readFileSync(join(root, 'manifests/install.yaml'), 'utf8')) as (Workload | null)[]).filter(
  (object): object is Workload => object !== null && /^(Deployment|DaemonSet)$/.test(object.kind),
);

test('each container of the installation has the capabilities that the security model lists, and no more', () => {
  const found = workloads.flatMap(({ spec }) => {
    const { containers, initContainers = [] } = spec.template.spec;
    return [...containers, ...initContainers].map(({ name, securityContext }) => {
      assert.deepEqual(securityContext?.capabilities?.drop, ['ALL'], name);
      return [name, [...(securityContext?.capabilities?.add ?? [])].sort()] as const;
    });
  });
  assert.deepEqual(Object.fromEntries(found), CAPABILITIES);
});

test('no container is privileged, writes its root or is without a seccomp profile; none shares PIDs or IPC with its node', () => {
  for (const { spec } of workloads) {
    const pod = spec.template.spec;
    assert.equal(pod.hostPID ?? false, false);
    assert.equal(pod.hostIPC ?? false, false);
    assert.equal(pod.securityContext?.seccompProfile?.type, 'RuntimeDefault');
    for (const { name, securityContext } of pod.containers) {
      assert.equal(securityContext?.privileged ?? false, false, name);
      assert.equal(securityContext?.readOnlyRootFilesystem, true, name);
      if (CAPABILITIES[name]?.length === 0) {
        assert.equal(securityContext?.allowPrivilegeEscalation, false, name);
        assert.notEqual(securityContext?.runAsUser ?? pod.securityContext?.runAsUser ?? 0, 0, name);
      }
    }
  }
});

test('no manifest sets a variable that components refuse to start with', () => {
  for (const { spec } of workloads) {
    for (const { name, env = [] } of spec.template.spec.containers) {
      for (const variable of env) assert.doesNotMatch(variable.name, /^NODE_(?!NAME$)|^OPENSSL_|^SSL_CERT/, name);
    }
  }
});
