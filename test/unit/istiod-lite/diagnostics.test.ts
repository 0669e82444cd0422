import assert from 'node:assert/strict';
import type { Readable } from 'node:stream';
import { test } from 'node:test';
import type { Answer, ProxyQuery, ProxyStatus, Refusal } from '../../../common/codec/gen/diagnostics.ts';
import { AskError, ProxyReports } from '../../../istiod-lite/diagnostics/reports.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const status = (name: string, more: Partial<ProxyStatus> = {}): ProxyStatus => ({
  name,
  namespace: 'istio-system',
  node: 'node1',
  kind: 'ztunnel',
  version: '1',
  ready: true,
  pods: 0,
  certificates: 1,
  soonestExpiry: 1_800_000_000n,
  problems: [],
  gateway: '',
  ...more,
});

const refusal = (code: string, timeMs: number): Refusal => ({
  code,
  timeMs: BigInt(timeMs),
  policy: 'shop/p',
  source: 'a',
  destination: 'b',
  message: 'm',
  count: 1,
  letThrough: false,
});

test('a proxy is shown with its last status and its refusals, as long as its stream lives', () => {
  const reports = new ProxyReports(new FakeClock());
  const proxy = reports.connect(() => undefined);
  assert.deepEqual(reports.rows(), [], 'nothing said, nothing shown');
  proxy.take({ status: status('ztunnel-a'), refusals: [], answers: [] });
  proxy.take({ status: status('ztunnel-a', { pods: 3 }), refusals: [refusal('POLICY_DENIED', 5)], answers: [] });
  const [row, ...more] = reports.rows();
  assert.equal(more.length, 0);
  assert.deepEqual(
    [row?.pods, row?.soonestExpiry, row?.refusals.map(({ code, timeMs }) => [code, timeMs])],
    [3, 1_800_000_000, [['POLICY_DENIED', 5]]],
  );
  assert.doesNotThrow(() => JSON.stringify(row));
  proxy.leave();
  assert.deepEqual(reports.rows(), []);
});

test('of refusals the newest stay, up to a limit', () => {
  const reports = new ProxyReports(new FakeClock());
  const proxy = reports.connect(() => undefined);
  for (let i = 0; i < 120; i++) proxy.take({ status: status('ztunnel-a'), refusals: [refusal('POLICY_DENIED', i)], answers: [] });
  const times = reports.rows()[0]?.refusals.map(({ timeMs }) => timeMs) ?? [];
  assert.equal(times.length, 50);
  assert.equal(times.at(-1), 119);
});

const answer = (id: number, json: string, last: boolean, error = ''): Answer => ({ id, json: Buffer.from(json), last, error });
const configDump = { $case: 'configDump', value: {} } as const;

function asked() {
  const clock = new FakeClock();
  const reports = new ProxyReports(clock);
  const queries: ProxyQuery[] = [];
  const proxy = reports.connect((query) => void queries.push(query));
  proxy.take({ status: status('ztunnel-a'), refusals: [], answers: [] });
  const answers = (...given: Answer[]): void => proxy.take({ status: undefined, refusals: [], answers: given });
  return { clock, reports, proxy, queries, answers };
}

test('a proxy is asked over its own stream, and its answer comes in pieces', async () => {
  const { reports, queries, answers } = asked();
  const told = reports.ask('ztunnel-a.istio-system', configDump);
  assert.deepEqual(queries, [{ id: 1, question: configDump }]);
  answers(answer(1, '{"a"', false));
  answers(answer(9, 'of another', true), answer(1, ':1}', true));
  assert.equal((await told).toString(), '{"a":1}');
});

test('two questions at once get each their own answer', async () => {
  const { reports, answers } = asked();
  const [first, second] = [1, 2].map(() => reports.ask('ztunnel-a.istio-system', configDump));
  answers(answer(2, '2', true), answer(1, '1', true));
  assert.deepEqual([(await first)?.toString(), (await second)?.toString()], ['1', '2']);
});

const fails = (told: Promise<unknown>, why: AskError['why'], message: RegExp): Promise<void> =>
  assert.rejects(told, (error: unknown) => error instanceof AskError && error.why === why && message.test(error.message));

test('why there is no answer is said: no such proxy, its own error, its silence, its end, too much of it', async () => {
  const { clock, reports, proxy, answers } = asked();
  await fails(reports.ask('other.istio-system', configDump), 'absent', /no proxy other.istio-system/);
  const refused = reports.ask('ztunnel-a.istio-system', configDump);
  answers(answer(1, '', true, 'does not know the question'));
  await fails(refused, 'failed', /does not know the question/);
  const silent = reports.ask('ztunnel-a.istio-system', configDump);
  const late = fails(silent, 'failed', /did not answer within 20 s/);
  await clock.advance(20_000);
  await late;
  const long = reports.ask('ztunnel-a.istio-system', configDump);
  const piece = { ...answer(3, '', false), json: Buffer.alloc(1 << 20) };
  for (let i = 0; i < 129; i++) answers(piece);
  await fails(long, 'failed', /longer than/);
  const left = reports.ask('ztunnel-a.istio-system', configDump);
  proxy.leave();
  await fails(left, 'failed', /went away/);
});

test('more questions than a replica waits for are put off', async () => {
  const { reports, answers } = asked();
  const waiting = Array.from({ length: 16 }, () => reports.ask('ztunnel-a.istio-system', configDump));
  await fails(reports.ask('ztunnel-a.istio-system', configDump), 'busy', /try again/);
  for (let id = 1; id <= 16; id++) answers(answer(id, '1', true));
  await Promise.all(waiting);
  const next = reports.ask('ztunnel-a.istio-system', configDump);
  answers(answer(17, '2', true));
  assert.equal((await next).toString(), '2');
});

const tap = {
  $case: 'tap',
  value: { subject: '', from: '', to: '', port: 0, method: '', path: '', status: '', outcome: '', maxRate: 0, seconds: 0 },
} as const;

/** What is there now. */
function readAll(stream: Readable): string {
  let text = '';
  for (let piece: unknown = stream.read(); piece !== null; piece = stream.read()) text += String(piece);
  return text;
}

test('an answer that goes on is handed out as it comes, and the proxy is told when nobody listens any more', async () => {
  const { reports, queries, answers } = asked();
  const told = reports.follow('ztunnel-a.istio-system', tap);
  answers(answer(1, '{"a":1}\n', false));
  const stream = await told;
  answers(answer(1, '{"a":2}\n', false));
  assert.equal(readAll(stream), '{"a":1}\n{"a":2}\n');
  stream.destroy();
  await new Promise((resolve) => stream.once('close', resolve));
  assert.deepEqual(queries.at(-1)?.question, { $case: 'cancel', value: { of: 1 } });
  const { length } = queries;
  const second = reports.follow('ztunnel-a.istio-system', tap);
  answers(answer(length + 1, '', true));
  const ended = await second;
  const end = new Promise((resolve) => ended.once('end', resolve));
  ended.resume();
  await end;
  assert.equal(queries.length, length + 1, 'what the proxy has ended need not be cancelled');
});

test('what a slow reader does not take is left out in whole lines, and counted', async () => {
  const { reports, answers } = asked();
  const told = reports.follow('ztunnel-a.istio-system', tap);
  const line = `${JSON.stringify({ event: 'x'.repeat(1000) })}\n`;
  answers(answer(1, line, false));
  const stream = await told;
  for (let i = 0; i < 3000; i++) answers(answer(1, line + line, false));
  assert.ok(stream.readableLength <= 1 << 20);
  const taken = readAll(stream).trimEnd().split('\n').length;
  answers(answer(1, line, false));
  const [said, ...rest] = readAll(stream).trimEnd().split('\n');
  assert.deepEqual([JSON.parse(said ?? ''), rest.length], [{ lost: 6001 - taken }, 1]);
  stream.destroy();
});

test('a proxy that refuses a tap, or leaves, is said; and a replica hands out so many at once', async () => {
  const { reports, proxy, answers } = asked();
  const refused = reports.follow('ztunnel-a.istio-system', tap);
  answers(answer(1, '', true, '4 taps are open on this proxy already'));
  await fails(refused, 'failed', /4 taps are open/);
  await fails(reports.follow('other.istio-system', tap), 'absent', /no proxy other/);
  const open: ReturnType<typeof reports.follow>[] = [];
  for (let id = 2; id < 2 + 32; id++) {
    open.push(reports.follow('ztunnel-a.istio-system', tap));
    answers(answer(id, '{}\n', false));
  }
  const streams = await Promise.all(open);
  await fails(reports.follow('ztunnel-a.istio-system', tap), 'busy', /32 taps/);
  const ends = streams.map((stream) => new Promise((resolve) => stream.resume().once('end', resolve)));
  proxy.leave();
  await Promise.all(ends);
});
