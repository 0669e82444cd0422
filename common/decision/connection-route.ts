/**
 * Which rule a connection takes that carries no HTTP: TCPRoute, TLSRoute and the tcp and tls parts of VirtualService. The first rule that
 * matches decides; where there are rules and none matches, the connection is refused.
 */
import { type Cidr, cidrContains, type IpAddress, ipBytes, parseCidr } from '../base/address.ts';
import type { Backend, ConnectionRule } from '../codec/gen/waypoint.ts';
import { compileSource, type RouteSource, type SourceTest, sourceHolds } from './route-source.ts';

export interface CompiledConnectionRule {
  readonly name: string;
  readonly serverNames: readonly ServerNameTest[];
  readonly source: SourceTest | undefined;
  readonly destinations: readonly Cidr[];
  readonly backends: readonly Backend[];
}

/** `below` is what follows the star of `*.example.com`, its dot included. */
type ServerNameTest = { readonly exact: string } | { readonly below: string } | 'any';

export interface RoutedConnection {
  /** Of the TLS client hello, in lower case; undefined where the connection is no TLS or names none. */
  readonly serverName: string | undefined;
  /** That was asked for. */
  readonly ip: IpAddress | undefined;
  readonly source: RouteSource;
}

/** @throws {Error} that names the rule and the field */
export function compileConnectionRule(rule: ConnectionRule): CompiledConnectionRule {
  return {
    name: rule.name,
    serverNames: rule.serverNames.map((name) => {
      const lower = name.toLowerCase();
      if (lower === '*') return 'any';
      return lower.startsWith('*.') ? { below: lower.slice(1) } : { exact: lower };
    }),
    source: rule.source && compileSource(rule.source),
    destinations: rule.destinationRanges.map((range) => {
      const cidr = parseCidr(range);
      if (!cidr) throw new Error(`${rule.name}: ${JSON.stringify(range)} is no address range`);
      return cidr;
    }),
    backends: rule.backends,
  };
}

/** Whether a rule among them asks for the server's name, which takes waiting for the client's first bytes. */
export const rulesNeedServerName = (rules: readonly CompiledConnectionRule[]): boolean =>
  rules.some(({ serverNames }) => serverNames.length > 0);

export const matchConnection = (
  rules: readonly CompiledConnectionRule[],
  connection: RoutedConnection,
): CompiledConnectionRule | undefined => rules.find((rule) => holds(rule, connection));

function holds({ serverNames, source, destinations }: CompiledConnectionRule, connection: RoutedConnection): boolean {
  if (serverNames.length > 0 && !serverNames.some((test) => serverNameHolds(test, connection.serverName))) return false;
  if (source && !sourceHolds(source, connection.source)) return false;
  if (destinations.length === 0) return true;
  const bytes = connection.ip === undefined ? undefined : ipBytes(connection.ip);
  return bytes !== undefined && destinations.some((range) => cidrContains(range, bytes));
}

function serverNameHolds(test: ServerNameTest, name: string | undefined): boolean {
  if (name === undefined) return false;
  if (test === 'any') return true;
  return 'exact' in test ? name === test.exact : name.endsWith(test.below) && name.length > test.below.length;
}
