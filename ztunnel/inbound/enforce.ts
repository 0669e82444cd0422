/** Policy on the inbound side: asked before a connection passes, and asked again for open ones whenever policies or the workload change. */
import { ProxyError } from '../../common/base/errors.ts';
import type { Workload } from '../../common/decision/mesh-view.ts';
import { decidePolicy, type PolicyInput } from '../../common/decision/policy.ts';
import { waypointBypass } from '../../common/decision/waypoint-bypass.ts';
import type { PodContext } from '../worker/context.ts';

/** @returns the policy that allowed it, where one did. @throws {ProxyError} POLICY_DENIED or MTLS_REQUIRED with the policy that decided */
export function enforce(pod: PodContext, local: Workload, subject: PolicyInput): string | undefined {
  const verdict = decidePolicy(pod.parts.view, local, subject);
  const { log, settings } = pod.parts;
  for (const { policy, matched } of verdict.dryRun) {
    log.info({ pod: pod.name, policy, matched, source: subject.source.ip, port: subject.destination.port }, 'dry-run policy');
  }
  tellMissing(pod, verdict.missing);
  if (settings.policyInfoLogging) {
    log.info({ pod: pod.name, allowed: verdict.allowed, policy: verdict.policy, reason: verdict.reason }, 'policy decision');
  }
  if (!verdict.allowed) throw refusal(verdict, 'policy rejection');
  const bypass = waypointBypass(pod.parts.view, local, subject);
  // A port that is no service's has no waypoint to go through: scrapes and the like are nobody's concern unless the pod says so.
  for (const service of bypass?.services ?? []) pod.parts.telemetry.waypointPassedBy(local, subject, service, bypass?.waypoint ?? '');
  return verdict.policy;
}

/** What was last said of each pod: once is enough, however many connections find it so. */
const lastMissing = new WeakMap<PodContext, string>();

function tellMissing(pod: PodContext, missing: readonly string[]): void {
  const names = missing.join(', ');
  if (names === (lastMissing.get(pod) ?? '')) return;
  lastMissing.set(pod, names);
  if (names !== '') pod.parts.log.warn({ pod: pod.name, policies: missing }, 'policies of this workload are not known');
}

/** @returns why an open connection may not go on; undefined where it may */
export function recheck(pod: PodContext, subject: PolicyInput): ProxyError | undefined {
  // Without the workload there is nothing to judge by; the pod is going, or the control plane has lost it for a moment.
  const local = pod.local.get();
  if (!local) return undefined;
  const verdict = decidePolicy(pod.parts.view, local, subject);
  if (verdict.allowed) return undefined;
  const { policy, reason } = verdict;
  return new ProxyError('POLICY_REVOKED', `connection closed due to policy change: ${reason}`, policy === undefined ? {} : { policy });
}

function refusal({ code, policy, reason }: ReturnType<typeof decidePolicy>, why: string): ProxyError {
  return new ProxyError(code ?? 'POLICY_DENIED', `connection closed due to ${why}: ${reason}`, policy === undefined ? {} : { policy });
}
