/** `meshctl explain`: what would become of a connection, and which rule says so; asked of the proxies that would carry it. */
import { readFileSync } from 'node:fs';
import yaml from 'js-yaml';
import picocolors from 'picocolors';
import { errorMessage } from '../../common/base/errors.ts';
import { CommandError } from '../command-error.ts';
import { decisionsOf, type Explanation, endsOf, explain, type RequestSketch } from '../explain/explanation.ts';
import { placeOf, proxiesOf } from '../explain/proxies.ts';
import { isConnectionId, recall, renderRecalled } from '../explain/recall.ts';
import { render } from '../explain/render.ts';
import { Istiod } from '../istiod.ts';
import { objectsOf } from '../rehearse/candidate.ts';
import { exitOf, type Rehearsal, renderDiff } from '../rehearse/rehearsal.ts';
import { type Connection, checkFormat, clusterError, connect, folded, inColour, widthFor } from '../terminal.ts';

export interface ExplainOptions extends Connection {
  /** `POD` or `NAMESPACE/POD`; or the id of a connection or request, without a destination. */
  readonly pod: string;
  /** `HOST` or `HOST:PORT`. */
  readonly destination: string | undefined;
  readonly namespace: string;
  readonly output: string;
  readonly method: string;
  readonly path: string;
  readonly header: readonly string[];
  /** Of an end user: as it is, `@FILE`, or `-` for the standard input. */
  readonly token?: string;
  /** A file of objects: what would change. */
  readonly diff?: string;
}

/** Whoever waits for an answer wants to know of any way that refuses it. */
function exitFor({ ways }: Explanation): number {
  const ends = endsOf(ways);
  return ends.has('refused') ? 1 : ends.has('unknown') || ends.size === 0 ? 3 : 0;
}

export async function explainCommand(options: ExplainOptions): Promise<number> {
  const { output, systemNamespace } = options;
  checkFormat(output);
  if (options.destination === undefined) return recallCommand(options);
  const [first = '', second] = options.pod.split('/', 2);
  const [namespace, pod] = second === undefined ? [options.namespace, first] : [first, second];
  const { host, port } = destinationOf(options.destination);
  const api = connect(options);
  let istiod: Istiod | undefined;
  try {
    const where = await placeOf(api, namespace, pod);
    istiod = await Istiod.open(api, systemNamespace);
    const explanation = await explain(
      { namespace, pod, host, port, request: sketchOf(options) },
      where,
      await proxiesOf(api, istiod, systemNamespace),
    );
    if (options.diff !== undefined) return await diffCommand(options, decisionsOf(explanation, where.ip), istiod);
    const shown = withoutSecrets(explanation);
    if (output === 'json') console.log(JSON.stringify(shown, undefined, 2));
    else if (output === 'yaml') console.log(yaml.dump(shown).trimEnd());
    else console.log(folded(render(shown, picocolors.createColors(inColour())), widthFor(output)));
    return exitFor(explanation);
  } catch (error) {
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    istiod?.close();
    api.close();
  }
}

/** What a file of objects would change of it. Exit status: that of a rehearsal. */
async function diffCommand(
  { diff = '', namespace, output }: ExplainOptions,
  asked: ReturnType<typeof decisionsOf>,
  istiod: Istiod,
): Promise<number> {
  if (asked.length === 0)
    throw new CommandError('no policy and no route of the mesh is asked about this connection: a file changes nothing of it');
  const rehearsal = await istiod.postOne<Rehearsal>('/debug/rehearse', { apply: objectsOf(diff, namespace), remove: [], asked });
  if (output === 'json') console.log(JSON.stringify(rehearsal, undefined, 2));
  else if (output === 'yaml') console.log(yaml.dump(rehearsal).trimEnd());
  else console.log(folded(renderDiff(rehearsal, picocolors.createColors(inColour())), widthFor(output)));
  return exitOf(rehearsal);
}

/** What happened to one that has ended. */
async function recallCommand(options: ExplainOptions): Promise<number> {
  const { pod: id, output } = options;
  if (!isConnectionId(id))
    throw new CommandError(
      `explain ${id}: expected POD and DESTINATION, or the id of a connection as the access log has it (32 hex digits)`,
    );
  const api = connect(options);
  let istiod: Istiod | undefined;
  try {
    istiod = await Istiod.open(api, options.systemNamespace);
    const asked = istiod;
    const recalled = await recall(id, async (of) => (await asked.journals({ id: of })).journals);
    if (recalled.parts.length === 0) {
      const silent = recalled.silent.length === 0 ? '' : `; not asked: ${recalled.silent.join(', ')}`;
      throw new CommandError(`no proxy remembers ${id}: it is too long ago, still open, or WARREN_DECISION_JOURNAL is off${silent}`);
    }
    if (output === 'json') console.log(JSON.stringify(recalled, undefined, 2));
    else if (output === 'yaml') console.log(yaml.dump(recalled).trimEnd());
    else console.log(folded(renderRecalled(recalled, picocolors.createColors(inColour())), widthFor(output)));
    return recalled.parts.some(({ decision }) => decision.verdict === 'refused') ? 1 : 0;
  } catch (error) {
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    istiod?.close();
    api.close();
  }
}

const SECRET = /^(authorization|proxy-authorization|cookie)\s*:/i;

/** What was asked is repeated in the answer, and the answer may be kept. */
function withoutSecrets(explanation: Explanation): Explanation {
  const { call } = explanation;
  const headers = call.request.headers.map((text) => (SECRET.test(text) ? `${text.slice(0, text.indexOf(':'))}: (not shown)` : text));
  return { ...explanation, call: { ...call, request: { ...call.request, headers } } };
}

/** A token on a command line is seen by everybody on the machine, so it may be in a file. */
function readToken(written: string): string {
  let text = written;
  try {
    if (written === '-') text = readFileSync(0, 'utf8');
    else if (written.startsWith('@')) text = readFileSync(written.slice(1), 'utf8');
  } catch (error) {
    throw new CommandError(`--token ${written}: ${errorMessage(error)}`);
  }
  const token = text.trim();
  // It goes into a header.
  if (!/^[\x21-\x7e]+$/.test(token)) throw new CommandError('--token: expected a token, which is one word');
  return token;
}

function sketchOf({ method, path, header, token }: ExplainOptions): RequestSketch {
  if (!path.startsWith('/')) throw new CommandError(`--path ${path}: expected a path that begins with /`);
  const bad = header.find((text) => !/^[!#$%&'*+.^_`|~0-9A-Za-z-]+:/.test(text));
  if (bad !== undefined) throw new CommandError(`--header ${bad}: expected NAME:VALUE`);
  const headers = token === undefined ? header : [...header, `authorization: Bearer ${readToken(token)}`];
  return { method: method.toUpperCase(), path, headers };
}

function destinationOf(text: string): { host: string; port: number } {
  // `[::1]:80`, `::1` and `name:80`: a bare IPv6 address has more than one colon and no bracket.
  const [, bracketed, named, port] = /^(?:\[([^\]]+)\]|([^:]*|[^[\]]*:[^[\]]*:[^[\]]*))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const host = bracketed ?? named ?? '';
  const number = port === undefined ? 80 : Number(port);
  if (host === '' || number < 1 || number > 65_535) throw new CommandError(`destination ${text}: expected HOST or HOST:PORT`);
  return { host, port: number };
}
