/** The screen of `meshctl top`, against a terminal that records. */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import { type Life, openScreen, type Terminal } from '../../../meshctl/live/screen.ts';

class FakeTerminal extends EventEmitter implements Terminal {
  columns = 20;
  rows = 4;
  written = '';
  write(text: string): void {
    this.written += text;
  }
}

class FakeLife extends EventEmitter implements Life {
  readonly pid = 7;
  readonly killed: string[] = [];
  kill(pid: number, signal: 'SIGSTOP'): void {
    this.killed.push(`${pid} ${signal}`);
  }
}

const ENTER = '\u001b[?1049h\u001b[?25l';
const LEAVE = '\u001b[?25h\u001b[?1049l';

test('the shell gets its lines back, with what was painted last under them, however the program ends', () => {
  for (const end of ['close', 'exit'] as const) {
    const [out, life] = [new FakeTerminal(), new FakeLife()];
    const screen = openScreen(out, life);
    assert.ok(out.written.startsWith(ENTER));
    screen.show('first');
    screen.show('second');
    out.written = '';
    if (end === 'close') screen.close();
    else life.emit('exit');
    assert.equal(out.written, `${LEAVE}second\n`);
    assert.equal(out.listenerCount('resize') + life.listenerCount('exit') + life.listenerCount('SIGTSTP'), 0);
  }
});

test('no more is painted than the terminal holds, and what is missing is said; a larger window shows more at once', () => {
  const [out, life] = [new FakeTerminal(), new FakeLife()];
  const screen = openScreen(out, life);
  out.written = '';
  screen.show(['one', 'two '.repeat(10), 'three', 'four', 'five'].join('\n'));
  const painted = (): string[] => out.written.replaceAll('\u001b[K', '').replace('\u001b[H', '').replace('\u001b[J', '').split('\r\n');
  assert.deepEqual(painted(), ['one', 'two two two two two ', 'three', '… 2 more lines: make']);
  Object.assign(out, { rows: 5, columns: 100, written: '' });
  out.emit('resize');
  assert.deepEqual(painted(), ['one', 'two '.repeat(10), 'three', 'four', 'five']);
  screen.close();
});

test('Ctrl-Z gives the terminal back until the program goes on', () => {
  const [out, life] = [new FakeTerminal(), new FakeLife()];
  const screen = openScreen(out, life);
  screen.show('rates');
  out.written = '';
  life.emit('SIGTSTP');
  assert.deepEqual([out.written, life.killed], [LEAVE, ['7 SIGSTOP']]);
  life.emit('SIGCONT');
  assert.match(out.written.slice(LEAVE.length), /\[\?1049h.*rates/);
  screen.close();
});
