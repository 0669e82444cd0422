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
    metricsText([requests, open], reader.collect()),
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
  assert.equal(metricsText([requests, open], new Map()), '# EOF\n');
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
  const stable = metricFamilies.filter((family) => family.stable && !/^(process|tokio)_/.test(family.name)).map(({ name }) => name);
  assert.deepEqual(stable, [
    'istio_build',
    'istio_tcp_connections_opened_total',
    'istio_tcp_connections_closed_total',
    'istio_tcp_received_bytes_total',
    'istio_tcp_sent_bytes_total',
  ]);
});

const peers: MetricFamily = { name: 'peers_total', type: 'counter', labels: ['peer'], help: 'Peers', stable: true, expires: true };

function expiring(count: number) {
  const reader = new SeriesReader([peers, requests]);
  const made = Array.from({ length: count }, (_, id) => {
    const segment = createSegment(2);
    reader.attach(id, segment);
    return new SeriesWriter(segment, (announcement) => reader.announce(id, [announcement]));
  });
  const totals = () => Object.fromEntries(reader.samples(peers).map(({ labels, value }) => [labels[0]?.[1], value]));
  return { reader, made, totals };
}

test('a series that nobody asks for expires, one that is asked for or held stays, and families that do not expire stay', () => {
  const { made, totals, reader } = expiring(1);
  const [writer] = made;
  assert.ok(writer);
  writer.add(writer.slot(peers, ['gone']), 5);
  const kept = writer.slot(peers, ['kept']);
  writer.add(kept, 7);
  for (let i = 0; i < 3; i++) writer.expire(3, () => false);
  assert.deepEqual(totals(), { gone: 5, kept: 7 });
  writer.expire(3, (slot) => slot === kept);
  assert.deepEqual(totals(), { kept: 7 });
  writer.slot(peers, ['kept']);
  for (let i = 0; i < 3; i++) writer.expire(3, () => false);
  assert.deepEqual(totals(), { kept: 7 });
  writer.expire(3, () => false);
  writer.add(writer.slot(requests, ['a', 'b']), 1);
  for (let i = 0; i < 10; i++) writer.expire(3, () => false);
  assert.deepEqual(totals(), {});
  assert.equal(reader.samples(requests)[0]?.value, 1);
});

test('room that expired series had is used again, later, and from zero', () => {
  const { made, totals } = expiring(1);
  const [writer] = made;
  assert.ok(writer);
  const first = writer.slot(peers, ['one']);
  writer.add(first, 5);
  writer.slot(peers, ['two']);
  writer.expire(0, () => false);
  assert.notEqual(writer.slot(peers, ['three']), first, 'not while a reader may still take it for the old one');
  writer.slot(peers, ['three']);
  writer.expire(5, () => false);
  writer.expire(5, () => false);
  assert.equal(writer.slot(peers, ['four']), first);
  assert.deepEqual(totals(), { three: 0, four: 0 });
  assert.equal(writer.overflowed, 0);
});

test('a series that one writer gives up and another still counts in does not go back', () => {
  const { made, totals } = expiring(2);
  const [one, two] = made;
  assert.ok(one && two);
  one.add(one.slot(peers, ['shared']), 5);
  two.add(two.slot(peers, ['shared']), 7);
  one.expire(0, () => false);
  assert.deepEqual(totals(), { shared: 12 });
  two.add(two.slot(peers, ['shared']), 1);
  assert.deepEqual(totals(), { shared: 13 });
  two.expire(0, () => false);
  assert.deepEqual(totals(), {});
});

test('a histogram is written as buckets, sum and count', async () => {
  const seconds: MetricFamily = { name: 'seconds', type: 'histogram', labels: ['of'], buckets: [0.1, 1], help: 'Seconds', stable: true };
  const reader = new SeriesReader([seconds]);
  const segment = createSegment(20);
  reader.attach(0, segment);
  const writer = new SeriesWriter(segment, (announcement) => reader.announce(0, [announcement]));
  for (const value of [0.05, 0.5, 5]) writer.observe(seconds, ['x'], value);
  writer.observe(seconds, ['y'], 2);
  assert.equal(
    metricsText([seconds], reader.collect()),
    [
      '# HELP seconds Seconds',
      '# TYPE seconds histogram',
      'seconds_bucket{of="x",le="0.1"} 1',
      'seconds_bucket{of="x",le="1"} 2',
      'seconds_bucket{of="x",le="+Inf"} 3',
      'seconds_sum{of="x"} 5.55',
      'seconds_count{of="x"} 3',
      'seconds_bucket{of="y",le="0.1"} 0',
      'seconds_bucket{of="y",le="1"} 0',
      'seconds_bucket{of="y",le="+Inf"} 1',
      'seconds_sum{of="y"} 2',
      'seconds_count{of="y"} 1',
      '# EOF',
      '',
    ].join('\n'),
  );
});
