/**
 * What takes the place of pods and kubelets where there is no Kubernetes: WorkloadEntries say what runs on which host, tokens say which host
 * calls, and a connection now and then says whether it is there.
 */
import { connect } from 'node:net';
import { seconds } from '../../common/base/clock.ts';
import type { KubeObject } from '../../common/client/kube-api.ts';
import type { NodeAuthorizer } from '../access/node-authorizer.ts';
import type { Caller } from '../access/token-review.ts';
import { at, text } from '../model/objects.ts';
import { HealthChecks, type HealthChecksOptions } from './health-checks.ts';

/** On a WorkloadEntry: the host that it runs on, as in the host's token. */
export const HOST = 'warren.dev/host';

export interface Outside {
  entryChanged(object: KubeObject, deleted: boolean): void;
  /** Whether the caller is a host of the mesh, which serves what runs on it. */
  isHost(caller: Caller): boolean;
  stop(): void;
}

/** In a cluster: pods say all this, and a WorkloadEntry is any user's to write. */
export const inCluster: Outside = { entryChanged: () => undefined, isHost: () => false, stop: () => undefined };

export interface OutsideOptions extends Omit<HealthChecksOptions, 'connects'> {
  readonly nodes: NodeAuthorizer;
  readonly systemNamespace: string;
}

const TIMEOUT_MS = seconds(2);

export function startOutside(options: OutsideOptions): Outside {
  const { nodes, systemNamespace } = options;
  const checks = new HealthChecks({ ...options, connects });
  /** Host of each entry. */
  const hosts = new Map<string, string>();
  // A shared ztunnel of the host asks for the others' certificates under this name.
  const ztunnel = (host: string) => ({
    namespace: systemNamespace,
    name: host,
    uid: host,
    serviceAccount: 'ztunnel',
    node: host,
    failed: false,
  });
  return {
    entryChanged(object, deleted) {
      const { namespace = '', name = '', uid = '', labels = {} } = object.metadata;
      const key = `${namespace}/${name}`;
      const before = hosts.get(key);
      hosts.delete(key);
      nodes.podRemoved({ namespace, name });
      if (before !== undefined && ![...hosts.values()].includes(before)) nodes.podRemoved({ namespace: systemNamespace, name: before });
      const host = labels[HOST];
      if (!deleted && host !== undefined) {
        hosts.set(key, host);
        const serviceAccount = text(at(object, 'spec', 'serviceAccount')) || 'default';
        nodes.podChanged({ namespace, name, uid, serviceAccount, node: host, failed: false });
        nodes.podChanged(ztunnel(host));
      }
      checks.entryChanged(object, deleted);
    },
    isHost: ({ podName }) => podName !== '' && [...hosts.values()].includes(podName),
    stop: () => checks.stop(),
  };
}

function connects(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: TIMEOUT_MS });
    const done = (up: boolean): void => {
      socket.destroy();
      resolve(up);
    };
    socket.once('connect', () => done(true));
    socket.once('timeout', () => done(false));
    socket.once('error', () => done(false));
  });
}
