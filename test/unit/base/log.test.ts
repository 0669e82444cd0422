import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LineWriter } from '../../../common/base/line-writer.ts';
import { createLog, textLine } from '../../../common/base/log.ts';

class Reader {
  text = '';
  ready = true;
  chunk = Number.POSITIVE_INFINITY;
  calls = 0;
  write(bytes: Buffer): number {
    this.calls++;
    if (!this.ready) return 0;
    const taken = bytes.subarray(0, this.chunk);
    this.text += taken.toString();
    return taken.length;
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('lines of one turn leave in one write', async () => {
  const reader = new Reader();
  const writer = new LineWriter({ sink: reader });
  writer.write('a\n');
  writer.write('b\n');
  await turn();
  assert.equal(reader.text, 'a\nb\n');
  assert.equal(reader.calls, 1);
});

test('a reader that takes a few bytes at a time gets every line whole', async () => {
  const reader = new Reader();
  reader.chunk = 3;
  const writer = new LineWriter({ sink: reader });
  writer.write('first line\n');
  writer.write('second line\n');
  await turn();
  assert.equal(reader.text, 'first line\nsecond line\n');
});

test('a reader that stalls costs lines, never memory or time, and is told how many', async () => {
  const reader = new Reader();
  reader.ready = false;
  let retry: (() => void) | undefined;
  const writer = new LineWriter({
    sink: reader,
    maxBufferedBytes: 10,
    after: (_ms, run) => {
      retry = run;
    },
  });
  writer.write('12345678\n');
  await turn();
  writer.write('lost one\n');
  writer.write('lost two\n');
  assert.equal(writer.dropped, 2);
  reader.ready = true;
  retry?.();
  assert.match(reader.text, /^12345678\n.*"dropped":2/);
});

test('JSON lines carry level, time, scope, message and the fields', async () => {
  const reader = new Reader();
  const { log } = createLog({ level: 'info', format: 'json', scope: 'ztunnel', sink: reader });
  log.child({ part: 'xds' }).warn({ error: new Error('gone') }, 'stream ended');
  log.debug('not shown');
  await turn();
  const line = JSON.parse(reader.text) as Record<string, unknown>;
  assert.deepEqual(
    { ...line, time: typeof line.time },
    { level: 'warn', time: 'string', scope: 'ztunnel', part: 'xds', error: 'gone', message: 'stream ended' },
  );
});

test('a new level holds for the log and for children that already exist', async () => {
  const reader = new Reader();
  const root = createLog({ level: 'info', format: 'json', scope: 'x', sink: reader });
  const child = root.log.child({});
  child.debug('before');
  root.setLevel('debug');
  child.debug('after');
  await turn();
  assert.match(reader.text, /after/);
  assert.doesNotMatch(reader.text, /before/);
});

test('text lines are tab-separated, with quoted strings and bare numbers', () => {
  assert.equal(textLine('{"level":"info","time":"T","scope":"s","message":"m","a":"x y","n":1}\n'), 'T\tinfo\ts\tm\ta="x y" n=1\n');
});
