/** What a pod's annotations say about its rules. Text that cannot be read is ignored, as Istio does, and reported. */
import type { ObjectMeta } from '../../common/client/kube-api.ts';
import type { PodRulesConfig } from './pod-rules.ts';

export interface PodOptions {
  readonly ingressMode: boolean;
  /** undefined: as the node's setting says. */
  readonly redirectDns: boolean | undefined;
  readonly virtualInterfaces: readonly string[];
  /** One sentence for each annotation that was ignored. */
  readonly problems: readonly string[];
}

const BYPASS_INBOUND = 'ambient.istio.io/bypass-inbound-capture';
export const DNS_CAPTURE = 'ambient.istio.io/dns-capture';
const VIRTUAL_INTERFACES = 'istio.io/reroute-virtual-interfaces';

// A longer name the kernel refuses, other characters could end the rule and begin another one.
const INTERFACE = /^[A-Za-z0-9][A-Za-z0-9_.@-]{0,14}$/;
const MAX_INTERFACES = 16;

export function podOptions({ annotations = {} }: Pick<ObjectMeta, 'annotations'>): PodOptions {
  const problems: string[] = [];
  const flag = (name: string): boolean | undefined => {
    const text = annotations[name];
    if (text === undefined) return undefined;
    const value = parseGoBool(text);
    if (value === undefined) problems.push(`${name}: ${JSON.stringify(text)} is neither true nor false`);
    return value;
  };
  const names = (annotations[VIRTUAL_INTERFACES] ?? '').split(',').flatMap((part) => part.trim() || []);
  const virtualInterfaces = names.filter((name) => INTERFACE.test(name)).slice(0, MAX_INTERFACES);
  for (const name of names.filter((name) => !INTERFACE.test(name))) {
    problems.push(`${VIRTUAL_INTERFACES}: ${JSON.stringify(name)} is no interface name`);
  }
  if (names.length > MAX_INTERFACES) problems.push(`${VIRTUAL_INTERFACES}: more than ${MAX_INTERFACES} interfaces`);
  return { ingressMode: flag(BYPASS_INBOUND) ?? false, redirectDns: flag(DNS_CAPTURE), virtualInterfaces, problems };
}

/** The node's configuration with the pod's own wishes. */
export function rulesFor(node: PodRulesConfig, options: PodOptions): PodRulesConfig {
  const { ingressMode, virtualInterfaces, redirectDns = node.redirectDns } = options;
  return { ...node, ingressMode, virtualInterfaces, redirectDns };
}

/** The spellings that Go's strconv.ParseBool takes. */
function parseGoBool(text: string): boolean | undefined {
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true;
  if (['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text)) return false;
  return undefined;
}
