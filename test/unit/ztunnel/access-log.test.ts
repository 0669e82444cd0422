import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProxyError } from '../../../common/base/errors.ts';
import type { LogLevel } from '../../../common/base/log.ts';
import { RefusalTally } from '../../../common/base/refusal-tally.ts';
import type { TrafficEvent } from '../../../common/decision/traffic-event.ts';
import { AccessLog } from '../../../common/server/access-log.ts';
import { createSegment, SeriesReader, SeriesWriter } from '../../../common/server/shared-series.ts';
import { metricFamilies, metrics, TRAFFIC_LABELS } from '../../../ztunnel/metrics.ts';
import type { ConnectionFacts } from '../../../ztunnel/worker/connection-facts.ts';
import { Telemetry } from '../../../ztunnel/worker/telemetry.ts';
import { service, workload } from '../../support/builders.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const client = workload({
  name: 'client-1',
  namespace: 'shop',
  serviceAccount: 'client',
  workloadName: 'client',
  canonicalName: 'client',
  canonicalRevision: 'v1',
});
const server = workload({
  name: 'server-1',
  namespace: 'shop',
  serviceAccount: 'server',
  workloadName: 'server',
  canonicalName: 'server',
  canonicalRevision: 'v2',
});

const facts = (more: Partial<ConnectionFacts> = {}): ConnectionFacts => ({
  direction: 'outbound',
  id: 'a'.repeat(32),
  source: { ip: '10.0.0.1', port: 4242 },
  sourceWorkload: client,
  sourceIdentity: 'spiffe://cluster.local/ns/shop/sa/client',
  destination: { ip: '10.0.0.2', port: 15_008 },
  authority: '10.0.0.2:8080',
  destinationWorkload: server,
  destinationIdentity: 'spiffe://cluster.local/ns/shop/sa/server',
  service: service({ name: 'server' }),
  mutualTls: true,
  target: { ip: '10.0.0.2', port: 80 },
  ...more,
});

function watch({
  format = 'text',
  level = 'info',
  maxSeries = 100,
}: {
  format?: 'text' | 'json';
  level?: LogLevel;
  maxSeries?: number;
} = {}) {
  const clock = new FakeClock(Date.UTC(2026, 0, 2, 3, 4, 5));
  const lines: string[] = [];
  const reader = new SeriesReader(metricFamilies);
  const segment = createSegment(maxSeries);
  reader.attach(0, segment);
  const series = new SeriesWriter(segment, (announcement) => reader.announce(0, [announcement]));
  const access = new AccessLog({ output: { write: (line) => lines.push(line) }, format, level, now: () => clock.now() });
  const events = { wanted: false, taken: [] as TrafficEvent[], take: (event: TrafficEvent) => void events.taken.push(event) };
  const telemetry = new Telemetry({ series, access, clock, refusals: new RefusalTally(), events });
  const value = (family: (typeof metrics)[keyof typeof metrics]) => reader.samples(family).map((sample) => sample.value);
  return { clock, lines, telemetry, reader, value, access, events };
}

test('a line has its fields in order, strings quoted, addresses and numbers bare', async () => {
  const { telemetry, lines, clock } = watch();
  const record = telemetry.opened(facts());
  record.running({ forward: 84, backward: 175 });
  await clock.advance(12.7);
  record.ended();
  assert.equal(
    lines[0],
    '2026-01-02T03:04:05.012Z\tinfo\taccess\tconnection complete\t' +
      'src.addr=10.0.0.1:4242 src.workload="client-1" src.namespace="shop" src.identity="spiffe://cluster.local/ns/shop/sa/client" src.cluster="Kubernetes" ' +
      'dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:8080 dst.service="server.shop.svc.cluster.local" dst.workload="server-1" dst.namespace="shop" ' +
      'dst.identity="spiffe://cluster.local/ns/shop/sa/server" dst.cluster="Kubernetes" direction="outbound" bytes_sent=84 bytes_recv=175 duration="12ms" ' +
      `id="${'a'.repeat(32)}"\n`,
  );
  assert.equal(lines.length, 1);
});

test('a JSON line carries the same fields in the same order', () => {
  const { telemetry, lines } = watch({ format: 'json' });
  telemetry.opened(facts()).ended();
  const parsed = JSON.parse(lines[0] ?? '');
  assert.deepEqual(Object.keys(parsed).slice(0, 6), ['level', 'time', 'scope', 'message', 'src.addr', 'src.workload']);
  assert.equal(parsed.scope, 'access');
  assert.equal(parsed.bytes_sent, 0);
  assert.equal('error' in parsed, false);
});

test('the receiving side counts its own way round', () => {
  const { telemetry, lines } = watch();
  const record = telemetry.opened(facts({ direction: 'inbound' }));
  record.running({ forward: 11, backward: 22 });
  record.ended();
  assert.match(lines[0] ?? '', /direction="inbound" bytes_sent=22 bytes_recv=11/);
});

test('identities appear only where TLS proved them', () => {
  const { telemetry, lines } = watch();
  telemetry.opened(facts({ mutualTls: false })).ended();
  assert.doesNotMatch(lines[0] ?? '', /identity/);
});

test('a refusal is an error line with code, policy and id at its end, and counts as failed with its flag', () => {
  const { telemetry, lines, reader, value } = watch();
  telemetry.opened(facts({ direction: 'inbound' })).ended(new ProxyError('POLICY_DENIED', 'denied "by" rule', { policy: 'shop/no' }));
  assert.match(lines[0] ?? '', /\terror\taccess\tconnection complete\t/);
  assert.ok(
    lines[0]?.endsWith(`error="denied \\"by\\" rule" id="${'a'.repeat(32)}" warren.code="POLICY_DENIED" warren.policy="shop/no"\n`),
  );
  assert.deepEqual(value(metrics.opened), [1]);
  assert.deepEqual(value(metrics.closed), [1]);
  const [failed] = reader.samples(metrics.failed);
  assert.equal(failed?.value, 1);
  assert.equal(Object.fromEntries(failed?.labels ?? []).response_flags, 'DENY');
  assert.deepEqual(reader.samples(metrics.refusals)[0], {
    labels: [
      ['code', 'POLICY_DENIED'],
      ['policy', 'shop/no'],
    ],
    value: 1,
  });
});

test('what failed before anything was known is a warning with addresses', () => {
  const { telemetry, lines, value } = watch();
  telemetry.failedEarly({
    direction: 'inbound',
    source: { ip: 'fd00::1', port: 1 },
    destination: { ip: 'fd00::2', port: 15_008 },
    error: new ProxyError('TLS_FAILURE', 'no certificate'),
  });
  assert.match(
    lines[0] ?? '',
    /\twarn\taccess\tconnection failed\tsrc.addr=\[fd00::1\]:1 dst.addr=\[fd00::2\]:15008 direction="inbound" error="no certificate" warren.code="TLS_FAILURE"\n$/,
  );
  assert.deepEqual(value(metrics.refusals), [1]);
  assert.deepEqual(value(metrics.opened), []);
});

test('an opened connection is a debug line without bytes', () => {
  const { telemetry, lines } = watch({ level: 'debug' });
  telemetry.opened(facts());
  assert.match(lines[0] ?? '', /\tdebug\taccess\tconnection opened\t/);
  assert.doesNotMatch(lines[0] ?? '', /bytes/);
});

test('a level that is off writes nothing, and can be turned on', () => {
  const { telemetry, lines, access } = watch({ level: 'error' });
  telemetry.opened(facts()).ended();
  assert.deepEqual(lines, []);
  access.level = 'info';
  telemetry.opened(facts()).ended();
  assert.equal(lines.length, 1);
});

test('bytes of an open connection are counted each second', async () => {
  const { telemetry, clock, value } = watch();
  const record = telemetry.opened(facts());
  const relay = { forward: 100, backward: 0 };
  record.running(relay);
  await clock.advance(1000);
  assert.deepEqual(value(metrics.received), [100]);
  relay.forward = 150;
  record.ended();
  assert.deepEqual(value(metrics.received), [150]);
  await clock.advance(2000);
  assert.deepEqual(value(metrics.received), [150]);
});

test('traffic labels are in their order; what is not known says unknown; localities appear as soon as an end is known', () => {
  const { telemetry, reader } = watch();
  telemetry.opened(facts({ sourceWorkload: undefined, service: undefined, sourceIdentity: undefined }));
  const labels = reader.samples(metrics.opened)[0]?.labels ?? [];
  assert.deepEqual(
    labels.map(([name]) => name),
    TRAFFIC_LABELS,
  );
  const byName = Object.fromEntries(labels);
  assert.equal(byName.source_workload, 'unknown');
  assert.equal(byName.destination_service, 'unknown');
  assert.equal(byName.destination_principal, 'spiffe://cluster.local/ns/shop/sa/server');
  assert.equal(byName.response_flags, '-');

  const known = watch();
  known.telemetry.opened(facts({ destinationWorkload: { ...server, locality: { region: 'r1', zone: '', subzone: '' } } }));
  assert.deepEqual(known.reader.samples(metrics.opened)[0]?.labels.slice(23), [
    ['source_region', 'unknown'],
    ['source_zone', 'unknown'],
    ['destination_region', 'r1'],
    ['destination_zone', 'unknown'],
  ]);
});

test('what a caller says of itself is used only where its workload is not known', () => {
  const { telemetry, reader } = watch();
  const sourceBaggage = { namespace: 'elsewhere', workloadName: 'said', canonicalName: 'said' };
  telemetry.opened(facts({ sourceWorkload: undefined, sourceBaggage }));
  telemetry.opened(facts({ sourceBaggage }));
  const names = reader.samples(metrics.opened).map(({ labels }) => Object.fromEntries(labels).source_workload);
  assert.deepEqual(names, ['said', 'client']);
});

test('a label is never longer than a name can be, whatever a caller says of itself', () => {
  const { telemetry, reader } = watch();
  telemetry.opened(facts({ sourceWorkload: undefined, sourceBaggage: { workloadName: 'x'.repeat(10_000) } }));
  const labels = Object.fromEntries(reader.samples(metrics.opened)[0]?.labels ?? []);
  assert.equal(labels.source_workload?.length, 253);
});

test('look-ups of hostnames are counted by caller and name', () => {
  const { telemetry, reader } = watch();
  telemetry.onDemandDns(client, 'db.example');
  telemetry.onDemandDns(client, 'db.example');
  const [sample] = reader.samples(metrics.onDemandDns);
  assert.equal(sample?.value, 2);
  assert.deepEqual(sample?.labels.at(-1), ['hostname', 'db.example']);
  assert.equal(Object.fromEntries(sample?.labels ?? []).source_principal, 'spiffe://cluster.local/ns/shop/sa/client');
});

test('beyond the limit of series everything goes to one named other, and that is counted', async () => {
  const { telemetry, reader, clock } = watch({ maxSeries: 7 });
  for (const name of ['one', 'two', 'three']) telemetry.opened(facts({ destinationWorkload: { ...server, workloadName: name } }));
  await clock.advance(1000);
  const samples = reader.samples(metrics.opened);
  const other = samples.find(({ labels }) => labels[0]?.[1] === 'other');
  assert.equal(
    samples.reduce((sum, { value }) => sum + value, 0),
    3,
  );
  assert.equal(other?.value, 2);
  assert.ok((reader.samples(metrics.seriesOverflow)[0]?.value ?? 0) > 0);
});

test('a connection is two events for whoever wants them, and none while nobody does', async () => {
  const { telemetry, events, clock } = watch();
  telemetry.opened(facts()).ended();
  assert.equal(events.taken.length, 0);
  events.wanted = true;
  const record = telemetry.opened(facts());
  record.running({ forward: 84, backward: 175 });
  await clock.advance(12);
  record.ended(new ProxyError('POLICY_DENIED', 'not allowed', { policy: 'shop/p' }));
  const [opened, closed, ...more] = events.taken;
  assert.equal(more.length, 0);
  assert.deepEqual([opened?.type, opened?.bytesForward], ['opened', 0]);
  assert.deepEqual(
    [
      closed?.type,
      closed?.source.name,
      closed?.service?.name,
      closed?.port,
      closed?.bytesForward,
      closed?.bytesBackward,
      closed?.durationMs,
    ],
    ['closed', 'client-1', 'server', 8080, 84, 175, 12],
  );
  assert.deepEqual([closed?.code, closed?.refused, closed?.policy, closed?.mutualTls], ['POLICY_DENIED', true, 'shop/p', true]);
});

test('a refusal before the connection counts is an event with what is known, and a quiet one is none', () => {
  const { telemetry, events } = watch();
  events.wanted = true;
  const error = new ProxyError('WAYPOINT_ABSENT', 'no waypoint');
  const failure = { direction: 'outbound', source: { ip: '10.0.0.1', port: 1 }, destination: { ip: '10.0.0.2', port: 80 }, error } as const;
  telemetry.failedEarly({ ...failure, client, service: service({ name: 'server' }) });
  telemetry.failedEarly({ ...failure, quiet: true });
  assert.deepEqual(
    events.taken.map(({ type, source, service: to, port, code, refused }) => [type, source.name, to?.name, port, code, refused]),
    [['closed', 'client-1', 'server', 80, 'WAYPOINT_ABSENT', true]],
  );
});

test('how long a connection took to be made is counted where it was opened, and only for those that were made', async () => {
  const { telemetry, reader, clock } = watch();
  const made = telemetry.opened(facts());
  await clock.advance(3);
  made.running({ forward: 0, backward: 0 });
  telemetry.opened(facts()).ended(new ProxyError('UPSTREAM_CONNECT', 'refused'));
  telemetry.opened(facts({ direction: 'inbound' })).running({ forward: 0, backward: 0 });
  const found = reader.collect();
  const name = 'warren_tcp_connect_duration_milliseconds';
  const buckets = (found.get(`${name}_bucket`) ?? []).map(({ labels, value }) => [labels.at(-1)?.[1], value]);
  assert.deepEqual(buckets.slice(0, 4), [
    ['1', 0],
    ['2', 0],
    ['5', 1],
    ['10', 1],
  ]);
  assert.deepEqual(buckets.at(-1), ['+Inf', 1]);
  assert.deepEqual([found.get(`${name}_count`)?.[0]?.value, found.get(`${name}_sum`)?.[0]?.value], [1, 3]);
});
