/** `istiod enroll --host=NAME --namespace=NAMESPACE --service-account=NAME [--ttl=2160h] [--state-dir=DIR]`: a token for a host outside Kubernetes. */
import { parseArgs } from 'node:util';
import { duration, readSettings } from '../../common/base/settings.ts';
import { settingsTable } from '../settings.ts';
import { issueHostToken } from './file-cluster.ts';

/** @returns the token @throws Error naming the flag that is missing or wrong */
export function enroll(flags: readonly string[], env: Readonly<Record<string, string | undefined>>, now: number): string {
  const { values } = parseArgs({
    args: [...flags],
    options: {
      host: { type: 'string' },
      namespace: { type: 'string', default: 'default' },
      'service-account': { type: 'string', default: 'default' },
      ttl: { type: 'string', default: '2160h' },
      'state-dir': { type: 'string' },
    },
  });
  if (values.host === undefined)
    throw new Error('--host is missing: the name of the host, as in the label warren.dev/host of its WorkloadEntries');
  return issueHostToken({
    stateDirectory: values['state-dir'] ?? readSettings(settingsTable, env).stateDirectory,
    host: values.host,
    namespace: values.namespace,
    serviceAccount: values['service-account'],
    lifetimeMs: duration.parse(values.ttl),
    now,
  });
}
