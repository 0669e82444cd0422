import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MetricFamily } from '../../../common/server/metric-family.ts';
import { metricsContentType, metricsText } from '../../../common/server/metrics-text.ts';
import { createSegment, SeriesReader, SeriesWriter } from '../../../common/server/shared-series.ts';
import { metricFamilies } from '../../../ztunnel/metrics.ts';

const requests: MetricFamily = { name: 'requests_total', type: 'counter', labels: ['to', 'by'], help: 'Requests', stable: true };
const open: MetricFamily = { name: 'open', type: 'gauge', labels: [], help: 'Open things', stable: false };

function writers(count: number) {
  const reader = new SeriesReader([requests, open]);
  const made = Array.from({ length: count }, (_, id) => {
    const segment = createSegment(10);
    reader.attach(id, segment);
    return new SeriesWriter(segment, (announcement) => reader.announce(id, [announcement]));
  });
  return { reader, made };
}

test('a scrape adds up what all writers have counted', () => {
  const { reader, made } = writers(3);
  for (const [i, writer] of made.entries()) writer.add(writer.slot(requests, ['a', 'x']), i + 1);
  assert.deepEqual(reader.samples(requests), [
    {
      labels: [
        ['to', 'a'],
        ['by', 'x'],
      ],
      value: 6,
    },
  ]);
});

test('a writer that ends takes its gauges along and leaves its counters', () => {
  const { reader, made } = writers(2);
  for (const writer of made) {
    writer.add(writer.slot(requests, ['a', 'x']), 5);
    writer.set(writer.slot(open, []), 2);
  }
  reader.detach(0);
  assert.equal(reader.samples(requests)[0]?.value, 10);
  assert.equal(reader.samples(open)[0]?.value, 2);
  const segment = createSegment(10);
  reader.attach(0, segment);
  const next = new SeriesWriter(segment, (announcement) => reader.announce(0, [announcement]));
  next.add(next.slot(requests, ['a', 'x']), 1);
  assert.equal(reader.samples(requests)[0]?.value, 11);
  reader.detach(0);
  assert.equal(reader.samples(requests)[0]?.value, 11);
});

test('a series is announced once and found again by its labels', () => {
  const announced: number[] = [];
  const writer = new SeriesWriter(createSegment(10), ({ slot }) => announced.push(slot));
  assert.equal(writer.slot(requests, ['a', 'x']), writer.slot(requests, ['a', 'x']));
  assert.notEqual(writer.slot(requests, ['a', 'x']), writer.slot(requests, ['ax', '']));
  assert.equal(announced.length, 2);
});

test('the text is OpenMetrics: names without _total in HELP and TYPE, unstable families say so, labels escaped, an end', async () => {
  const { reader, made } = writers(1);
  const writer = made[0];
  assert.ok(writer);
  writer.add(writer.slot(requests, ['a"b\\c\nd', 'x']), 3);
  writer.set(writer.slot(open, []), 1.5);
  assert.equal(
    await metricsText([requests, open], reader.collect()),
    [
      '# HELP requests Requests',
      '# TYPE requests counter',
      'requests_total{to="a\\"b\\\\c\\nd",by="x"} 3',
      '# HELP open Open things (unstable)',
      '# TYPE open gauge',
      'open 1.5',
      '# EOF',
      '',
    ].join('\n'),
  );
});

test('families without a sample are left out', async () => {
  assert.equal(await metricsText([requests, open], new Map()), '# EOF\n');
});

test('the content type is the one that was asked for', () => {
  assert.equal(
    metricsContentType('application/openmetrics-text;version=1.0.0;q=0.5,text/plain'),
    'application/openmetrics-text;charset=utf-8;version=1.0.0',
  );
  assert.equal(metricsContentType('text/plain'), 'text/plain; charset=utf-8');
  assert.equal(metricsContentType(undefined), 'text/plain; charset=utf-8');
});

test("exactly Istio's stable families are without the unstable mark", () => {
  const stable = metricFamilies.filter((family) => family.stable && !family.name.startsWith('process_')).map(({ name }) => name);
  assert.deepEqual(stable, [
    'istio_build',
    'istio_tcp_connections_opened_total',
    'istio_tcp_connections_closed_total',
    'istio_tcp_received_bytes_total',
    'istio_tcp_sent_bytes_total',
  ]);
});
