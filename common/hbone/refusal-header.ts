/**
 * `x-warren-refusal`: tells an authenticated mesh peer why its tunnel was refused. Callers of other namespaces learn code and id and no
 * rule names (decision 5); nobody outside the mesh gets this far.
 */
import type { ProxyError } from '../base/errors.ts';
import type { SpiffeId } from '../base/spiffe.ts';
import { REFUSAL_HEADER } from './refusal.ts';
import type { Headers } from './types.ts';

/** @param localNamespace of the pod that refuses; undefined where its workload is not known */
export function refusalHeaders(error: ProxyError, id: string, caller: SpiffeId | undefined, localNamespace: string | undefined): Headers {
  const named = error.policy !== undefined && caller?.namespace === localNamespace ? `; policy=${error.policy}` : '';
  return [[REFUSAL_HEADER, `code=${error.code}${named}; id=${id}`]];
}
