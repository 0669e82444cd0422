/**
 * What a conformance suite is. Each file in `suites/` exports one as `suite`; main.ts finds, runs and counts them. A suite reads its cases
 * from the folder that the runner was given; a fixture or schema that is missing there comes from the default folder.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';

export type Verdict = 'pass' | 'fail' | 'skip';

export interface Row {
  /** Path of the cases' folder, relative to the root of the cases. */
  readonly suite: string;
  /** The file's stem, or `stem/row name` where one file holds many cases. */
  readonly case: string;
  readonly verdict: Verdict;
  /** Empty for a plain pass; `differs: RULE` where we differ on purpose (decision 13). */
  readonly reason: string;
}

/** One case as a suite reports it; the runner adds the suite's name. */
export type CaseResult = Omit<Row, 'suite'>;

export interface Suite {
  /** The folder of its cases, for example `ztunnel/derived`. Several files may share one folder. */
  readonly suite: string;
  run(cases: Cases): AsyncIterable<CaseResult> | Iterable<CaseResult>;
}

/** The folder of cases that the runner was given, with the default folder behind it for what a case needs but does not hold. */
export class Cases {
  readonly root: string;
  /** Whether cases that need a cluster are to run on real Kubernetes instead of a playground. */
  readonly kubernetes: boolean;
  /** Without the cases for gateways, which take a minute in the playground. */
  readonly brief: boolean;
  readonly #fallback: string;

  constructor(root: string, fallback: string, { kubernetes = false, brief = false }: { kubernetes?: boolean; brief?: boolean } = {}) {
    this.root = root;
    this.kubernetes = kubernetes;
    this.brief = brief;
    this.#fallback = fallback;
  }

  /** Whether the given folder itself has this file or folder. */
  has(path: string): boolean {
    return existsSync(join(this.root, path));
  }

  /** Text of a case file in the given folder. */
  read(path: string): string {
    return readFileSync(join(this.root, path), 'utf8');
  }

  /** Names in a folder of the given root, sorted; none where the folder is absent. */
  list(path: string): string[] {
    return this.has(path) ? readdirSync(join(this.root, path)).sort() : [];
  }

  /** Path of a fixture or schema: from the given folder, else from the default one. */
  fixture(path: string): string {
    const own = join(this.root, path);
    return existsSync(own) ? own : join(this.#fallback, path);
  }
}

/** One case from one comparison. `what` names the compared thing in the reason of a failure. */
export function compare(name: string, actual: unknown, expected: unknown, what = 'result'): CaseResult {
  if (isDeepStrictEqual(actual, expected)) return { case: name, verdict: 'pass', reason: '' };
  return { case: name, verdict: 'fail', reason: `${what}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}` };
}

/** Runs one case; what it throws is its failure. */
export function attempt(name: string, run: () => CaseResult): CaseResult {
  try {
    return run();
  } catch (error) {
    return { case: name, verdict: 'fail', reason: error instanceof Error ? error.message : String(error) };
  }
}

/** Gives repeated names a number (`x`, `x 2`, `x 3`), so that every row of a report can be told apart. */
export function uniqueNames(): (name: string) => string {
  const seen = new Map<string, number>();
  return (name) => {
    const n = (seen.get(name) ?? 0) + 1;
    seen.set(name, n);
    return n === 1 ? name : `${name} ${n}`;
  };
}
