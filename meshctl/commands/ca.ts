/**
 * `meshctl ca status|rotate`: the roots of the mesh, and replacing them. A rotation is a wish on the CA's Secret; the replica of istiod that
 * writes carries it out, in three steps with a day or so between them, and goes on after whatever interruption.
 */
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { CommandError } from '../command-error.ts';
import { Istiod } from '../istiod.ts';
import {
  type Connection,
  checkFormat,
  clusterError,
  connect,
  folded,
  hanging,
  plural,
  print,
  TABLE_WIDTH,
  table,
  widthFor,
} from '../terminal.ts';

const SECRET = 'istio-ca-secret';
const REQUEST = 'warren.dev/ca-rotation';

interface Certificate {
  readonly subject: string;
  readonly serial: string;
  readonly expires: string;
}

interface Step {
  readonly step: string;
  readonly at: string;
}

/** What /debug/ca shows. */
export interface CaPage {
  readonly ca: {
    readonly source: string;
    /** Missing where somebody else signs. */
    readonly signer?: Certificate;
    readonly roots: readonly Certificate[];
    /** Of a root of the mesh's own. */
    readonly rotation?: { readonly phase: string; readonly requested: string; readonly next: Step; readonly plan: readonly Step[] };
    readonly problem?: string;
  };
  readonly distributed: readonly { readonly configMap: string; readonly namespaces: number; readonly behind: readonly string[] }[];
}

/** One replica's page, and what its proxies say of themselves. */
export interface CaView {
  readonly replica: string;
  readonly page: CaPage;
  readonly proxies: readonly { readonly name: string; readonly ready: boolean }[];
}

const STEPS: Readonly<Record<string, string>> = {
  introduce: 'a new root is made and trusted beside the old one, which signs',
  switch: 'the new root signs; both are trusted',
  retire: 'the old root is trusted no more',
  drop: 'the new root is dropped',
  renew: 'the root is signed again, with the same key',
};

export async function caStatus({ output, ...connection }: Connection & { readonly output: string }): Promise<number> {
  checkFormat(output);
  return withViews(connection, async (views) => {
    await print(views, output, (width) => statusText(views, width));
    return problemsOf(views).length === 0 ? 0 : 1;
  });
}

export async function rotate(options: Connection & { readonly rehearse: boolean; readonly abort: boolean }): Promise<number> {
  const { rehearse, abort, ...connection } = options;
  if (rehearse && abort) throw new CommandError('--rehearse and --abort together mean nothing');
  return withViews(connection, async (views, api) => {
    const refusal = abort ? whyNotAbort(views) : whyNotRotate(views);
    if (rehearse) {
      console.log(folded(rehearsalText(views), widthFor('text')));
      return refusal === undefined ? 0 : 1;
    }
    if (refusal !== undefined) throw new CommandError(refusal);
    const path = `/api/v1/namespaces/${connection.systemNamespace}/secrets/${SECRET}`;
    await api.patch<KubeObject>(path, { metadata: { annotations: { [REQUEST]: abort ? 'abort' : 'start' } } }, { type: 'merge' });
    console.log(abort ? 'the rotation is being called off' : folded(rehearsalText(views).replace('would be', 'is'), widthFor('text')));
    return 0;
  });
}

/** Why a rotation must not be started now; undefined where it may. */
export function whyNotRotate(views: readonly CaView[]): string | undefined {
  if (!views[0]?.page.ca.rotation)
    return `the CA is ${views[0]?.page.ca.source}: whoever brings it rotates it (first a root-cert.pem with both roots, then the new CA)`;
  // One replica does it, and each learns of it by itself.
  const rotations = views.flatMap(({ page }) => page.ca.rotation ?? []);
  const phase = rotations.find((each) => each.phase !== 'none')?.phase;
  const underWay = phase ?? (rotations.some(({ requested }) => requested === 'start') ? 'requested' : undefined);
  if (underWay !== undefined) return `a rotation is under way (${underWay}): see meshctl ca status`;
  return problemsOf(views)[0];
}

export function whyNotAbort(views: readonly CaView[]): string | undefined {
  const phase = views[0]?.page.ca.rotation?.phase;
  return phase === 'introduced' ? undefined : 'there is no rotation that could be called off: that goes only until the new root signs';
}

/** What would make a rotation cut connections. */
export function problemsOf(views: readonly CaView[]): string[] {
  const serials = new Set(views.map(({ page }) => page.ca.signer?.serial));
  return [
    ...(serials.size > 1
      ? ['replicas of istiod sign with different certificates; that is over within a minute, or one of them is cut off']
      : []),
    ...views.flatMap(({ replica, page }) => (page.ca.problem === undefined ? [] : [`${replica}: ${page.ca.problem}`])),
    ...views
      .slice(0, 1)
      .flatMap(({ page }) =>
        page.distributed.flatMap(({ configMap, behind }) =>
          configMap === 'istio-ca-root-cert' && behind.length > 0
            ? [`${plural(behind.length, 'namespace')} without the current roots: ${behind.slice(0, 10).join(', ')}`]
            : [],
        ),
      ),
    ...views.flatMap(({ proxies }) => proxies.flatMap(({ name, ready }) => (ready ? [] : [`proxy ${name} is not ready`]))),
  ];
}

export function statusText(views: readonly CaView[], width: number = TABLE_WIDTH): string {
  const page = views[0]?.page;
  if (!page) return 'istiod does not answer';
  const { source, signer, roots, rotation } = page.ca;
  const row = (what: string, { subject, serial, expires }: Certificate): string[] => [
    what,
    subject.replaceAll('\n', ', '),
    expires,
    serial,
  ];
  return [
    ...labelled('CA', source, width),
    ...(signer
      ? [table(['', 'SUBJECT', 'EXPIRES', 'SERIAL'], [row('signs', signer), ...roots.map((root) => row('trusted', root))], { width })]
      : []),
    ...(rotation
      ? [
          ...labelled(
            'rotation',
            `${rotation.phase === 'none' ? 'none under way' : rotation.phase}; next: ${STEPS[rotation.next.step]}, ${rotation.next.at}`,
            width,
          ),
        ]
      : []),
    ...problemsOf(views).flatMap((problem) => labelled('problem', problem, width)),
  ].join('\n');
}

/** A line with its label before it; where it is long, the rest stands under its beginning. */
function labelled(label: string, text: string, width: number): string[] {
  const margin = ' '.repeat(16);
  const [first = '', ...more] = hanging(margin, text, width);
  return [`${label.padEnd(margin.length)}${first.trimStart()}`, ...more];
}

function rehearsalText(views: readonly CaView[]): string {
  const refusal = whyNotRotate(views);
  const steps = views[0]?.page.ca.rotation?.plan ?? [];
  return [
    'A rotation would be:',
    ...steps.map(({ step, at }) => `  ${at}   ${STEPS[step] ?? step}`),
    'Between two steps every certificate is renewed and every namespace gets the roots; nothing is restarted and no connection is cut.',
    refusal === undefined ? 'Nothing stands in its way.' : `Not now: ${refusal}`,
  ].join('\n');
}

async function withViews(connection: Connection, run: (views: readonly CaView[], api: KubeApi) => Promise<number>): Promise<number> {
  const api = connect(connection);
  let istiod: Istiod | undefined;
  try {
    istiod = await Istiod.open(api, connection.systemNamespace);
    const of = istiod;
    const views = await Promise.all(
      of.pods.map(async (pod) => ({
        replica: pod.metadata.name ?? '',
        page: await of.get<CaPage>(pod, '/debug/ca'),
        proxies: await of.get<CaView['proxies']>(pod, '/debug/proxies'),
      })),
    );
    if (views.length === 0) throw new CommandError('istiod is not running: look with meshctl status');
    return await run(views, api);
  } catch (error) {
    if (error instanceof KubeApiError && error.status === 403)
      throw new CommandError(`you may not change the Secret of the CA: ${error.message}`);
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    istiod?.close();
    api.close();
  }
}
