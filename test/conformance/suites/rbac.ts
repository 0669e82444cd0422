/** L4 policies against connections, and string matchers, as ztunnel's tests decide them. */
import { parseSocketAddress, type SocketAddress } from '../../../common/base/address.ts';
import { parseSpiffeId } from '../../../common/base/spiffe.ts';
import type { StringMatch } from '../../../common/decision/mesh-view.ts';
import { policyMatches, policySubject, stringMatches } from '../../../common/decision/policy.ts';
import { policyFromJson } from '../../support/proto-json.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite, uniqueNames } from '../suite.ts';

interface RbacFile {
  readonly policyMatch?: readonly {
    readonly test: string;
    readonly policy: Record<string, unknown>;
    readonly connection: { readonly srcIdentity: string | null; readonly src: string; readonly dst: string };
    readonly matches: boolean;
  }[];
  readonly stringMatch?: readonly {
    readonly name: string;
    readonly matcher: StringMatch;
    readonly value: string;
    readonly matches: boolean;
  }[];
}

const FILE = 'ztunnel/derived/rbac.json';

export const suite: Suite = {
  suite: 'ztunnel/derived',
  *run(cases: Cases): Iterable<CaseResult> {
    if (!cases.has(FILE)) return;
    const file: RbacFile = JSON.parse(cases.read(FILE));
    const unique = uniqueNames();
    for (const row of file.policyMatch ?? []) {
      const name = unique(`rbac/${row.test}`);
      yield attempt(name, () => {
        const { srcIdentity, src, dst } = row.connection;
        const identity = srcIdentity === null ? undefined : parseSpiffeId(srcIdentity);
        const subject = policySubject({ source: address(src), identity, destination: address(dst) });
        return compare(name, policyMatches(policyFromJson(row.policy), subject), row.matches, 'match');
      });
    }
    for (const row of file.stringMatch ?? []) {
      const name = unique(`rbac/${row.name}`);
      yield attempt(name, () => compare(name, stringMatches(row.matcher, row.value), row.matches, 'match'));
    }
  },
};

function address(value: string): SocketAddress {
  const parsed = parseSocketAddress(value);
  if (!parsed) throw new Error(`no address: ${value}`);
  return parsed;
}
