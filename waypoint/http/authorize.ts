/** L7 authorization: every request is judged by the policies of its service and of the waypoint as they are at that moment. */
import { ProxyError } from '../../common/base/errors.ts';
import { decideHttp } from '../../common/decision/http-authorization.ts';
import type { Configuration } from '../worker/configuration.ts';
import type { Stage } from './context.ts';

export function authorize({ configuration }: { readonly configuration: Pick<Configuration, 'policiesOf'> }): Stage {
  return (next) => (request) => {
    const { caller, target } = request.connection;
    request.judged = request.head;
    const policies = configuration.policiesOf(target.serviceKey);
    if (policies.length === 0) return next(request);
    const verdict = decideHttp(
      policies,
      request.head,
      { identity: caller.identity, ip: caller.address.ip, token: request.token },
      { service: target.serviceKey, ip: target.ip, port: target.port },
    );
    request.wouldDeny = verdict.wouldDeny;
    request.audited = verdict.audited;
    request.policy = verdict.policy;
    if (verdict.allowed) return next(request);
    const options = verdict.policy === undefined ? {} : { policy: verdict.policy };
    return Promise.reject(new ProxyError('POLICY_DENIED', verdict.reason, options));
  };
}
