/**
 * What the generated cluster is made of, whoever keeps it: namespaces, nodes, services and pods; and pods that come at a given rate. How an object
 * is written is an argument.
 */
export interface Sizes {
  readonly services: number;
  readonly pods: number;
  readonly nodes: number;
}

export interface ClusterWriter {
  create(object: object): Promise<void> | void;
  /** Created, `created` called with the time at which that was answered, and then given this status, as by a kubelet. */
  startPod(pod: object, status: object, created: (at: number) => void): Promise<void> | void;
  /** At once, without a kubelet's word. */
  removePod(namespace: string, name: string): Promise<void> | void;
}

/** What a server is asked for by its parent. */
export type Wish = { readonly perSecond: number; readonly seconds: number; readonly prefix: string } | { readonly remove: string };

const NAMESPACES = 10;
const SYSTEM = 'istio-system';
/** Written at once where writing takes time. */
const AT_ONCE = 64;

let address = 0;
/** Pods that came by `change`, by the first part of their names. */
const changed = new Map<string, { readonly namespace: string; readonly name: string }[]>();

/** Everything that is there before istiod starts. */
export async function fill(writer: ClusterWriter, { services, pods, nodes }: Sizes): Promise<void> {
  for (const name of [SYSTEM, ...each(NAMESPACES, namespaceOf)]) await writer.create(object('Namespace', { name }));
  for (const name of ['istiod', 'ztunnel', 'default']) await writer.create(object('ServiceAccount', { name, namespace: SYSTEM }));
  for (const namespace of each(NAMESPACES, namespaceOf)) await writer.create(object('ServiceAccount', { name: 'default', namespace }));
  await all(nodes, (n) =>
    writer.create(
      object('Node', {
        name: `node${n}`,
        labels: { 'topology.kubernetes.io/region': 'r', 'topology.kubernetes.io/zone': `z${n % 3}` },
      }),
    ),
  );
  await all(services, (n) =>
    writer.create(
      object(
        'Service',
        { name: `svc${n}`, namespace: namespaceOf(n) },
        { spec: { selector: { app: `svc${n}` }, ports: [{ name: 'http', port: 80, targetPort: 'http' }] } },
      ),
    ),
  );
  await all(pods, (n) => startPod(writer, `pod${n}`, n, { services, nodes }));
}

/** Carries out what the parent asks for, and says when each pod was created (`created`, `at`), or that all of a prefix are gone (`removed`). */
export function obey(writer: ClusterWriter, sizes: Sizes): void {
  process.on('message', (wish: Wish) => {
    if ('perSecond' in wish) change(writer, sizes, wish, (created, at) => process.send?.({ created, at }));
    else
      remove(writer, wish.remove).then(
        () => process.send?.({ removed: wish.remove }),
        (error: unknown) => {
          console.error(error);
          process.exit(1);
        },
      );
  });
}

async function remove(writer: ClusterWriter, prefix: string): Promise<void> {
  const pods = changed.get(prefix) ?? [];
  changed.delete(prefix);
  await all(pods.length, async (n) => {
    const pod = pods[n];
    if (pod) await writer.removePod(pod.namespace, pod.name);
  });
}

/** Pods evenly spread over this time, caught up with where the process was late. */
function change(
  writer: ClusterWriter,
  sizes: Sizes,
  rate: { readonly perSecond: number; readonly seconds: number; readonly prefix: string },
  created: (name: string, at: number) => void,
): void {
  const { perSecond, seconds, prefix } = rate;
  const started = performance.now();
  let begun = 0;
  const made: { namespace: string; name: string }[] = [];
  changed.set(prefix, made);
  const step = (): void => {
    const due = Math.min(perSecond * seconds, Math.floor(((performance.now() - started) / 1000) * perSecond));
    for (; begun < due; begun++) {
      const name = `${prefix}-${begun}`;
      made.push({ namespace: namespaceOf(begun), name });
      void startPod(writer, name, begun, sizes, (at) => created(name, at));
    }
    if (begun < perSecond * seconds) setTimeout(step, 1000 / perSecond / 2);
  };
  step();
}

function startPod(
  writer: ClusterWriter,
  name: string,
  n: number,
  { services, nodes }: Pick<Sizes, 'services' | 'nodes'>,
  created: (at: number) => void = () => undefined,
): Promise<void> | void {
  const metadata = {
    name,
    namespace: namespaceOf(n),
    labels: { app: `svc${n % services}` },
    annotations: { 'ambient.istio.io/redirection': 'enabled' },
  };
  const containers = [{ name: 'app', image: 'app', ports: [{ name: 'http', containerPort: 8080 }] }];
  const ip = `10.${64 + (++address >> 16)}.${(address >> 8) & 255}.${address & 255}`;
  const status = { phase: 'Running', podIP: ip, podIPs: [{ ip }], conditions: [{ type: 'Ready', status: 'True' }] };
  return writer.startPod(object('Pod', metadata, { spec: { nodeName: `node${n % nodes}`, containers } }), status, created);
}

const object = (kind: string, metadata: object, more: object = {}): object => ({ apiVersion: 'v1', kind, metadata, ...more });
const namespaceOf = (n: number): string => `ns${n % NAMESPACES}`;
const each = <T>(count: number, make: (n: number) => T): T[] => Array.from({ length: count }, (_, n) => make(n));

async function all(count: number, write: (n: number) => Promise<void> | void): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) await write(next++);
  };
  await Promise.all(each(AT_ONCE, worker));
}
