/** A chapter of the story: where a request went, told by the waypoint to whoever collects traces. */
import { expect } from './checks.ts';
import type { Narrator } from './narrator.ts';
import type { Shop } from './shop.ts';

const TRACE_ID = '4bf92f3577b34da6a3ce929d0e0e4736';
const PARENT_ID = '00f067aa0ba902b7';

const OBJECTS = `apiVersion: v1
kind: Namespace
metadata: { name: observability }
---
apiVersion: v1
kind: Service
metadata: { name: collector, namespace: observability }
spec:
  selector: { app: collector }
  ports: [{ name: grpc, port: 4317 }, { name: http, port: 9411 }]
---
apiVersion: v1
kind: Pod
metadata: { name: collector, namespace: observability, labels: { app: collector } }
spec:
  terminationGracePeriodSeconds: 1
  containers: [{ name: collector, image: warren/collector, ports: [{ containerPort: 4317 }, { containerPort: 9411 }] }]
---
apiVersion: v1
kind: ConfigMap
metadata: { name: istio, namespace: istio-system }
data:
  mesh: |
    extensionProviders:
      - name: collector
        opentelemetry: { service: collector.observability.svc.cluster.local, port: 4317 }
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: { name: traces, namespace: shop }
spec:
  tracing:
    - providers: [{ name: collector }]
      randomSamplingPercentage: 100
      customTags: { shop: { literal: { value: demo } } }
`;

interface SeenSpan {
  readonly traceId: string;
  readonly parentId: string;
  readonly name: string;
  readonly service: string;
  readonly tags: Readonly<Record<string, string>>;
}

export async function traced(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('A trace: one Telemetry object, and each request tells a collector where it went');
  await shop.apply(OBJECTS);
  narrator.command('kubectl apply -f - <<< "kind: Telemetry, tracing by the provider collector, all of them"');
  await shop.must('wait', '-n', 'observability', '--for=condition=Ready', 'pod/collector', '--timeout=60s');
  let span: SeenSpan | undefined;
  await narrator.during(
    'a span of the caller’s own trace is at the collector',
    shop.eventually(
      async () => {
        await shop.call('shop', 'frontend', 'http://orders/', '-H', `traceparent:00-${TRACE_ID}-${PARENT_ID}-01`);
        span = (await spansOf(shop)).find(({ traceId }) => traceId === TRACE_ID);
        return span !== undefined;
      },
      () => 'no span of the request has come to the collector',
      60_000,
    ),
  );
  expect(span?.parentId === PARENT_ID, `the span hangs below ${span?.parentId || 'nothing'} and not below the caller's`);
  const { tags = {} } = span ?? {};
  narrator.saw(`${span?.service}: ${span?.name}`);
  for (const tag of ['http.status_code', 'istio.source_workload', 'istio.destination_workload', 'shop'])
    narrator.saw(`  ${tag} = ${tags[tag] ?? 'nothing'}`);
  expect(tags['istio.source_workload'] === 'frontend' && tags.shop === 'demo', 'the span does not say who called');
  narrator.ok('it says who called, which pod answered, and how long it took');
}

/** Of what the collector writes down. */
async function spansOf(shop: Shop): Promise<SeenSpan[]> {
  const log = await shop.must('logs', '-n', 'observability', 'collector');
  return log.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line) as SeenSpan] : []));
}
