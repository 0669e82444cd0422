import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { beginInTurn, turnsAreShared, turnToBegin } from '../../../common/hbone/app-socket.ts';
import { type Corked, Lane, TurnShares } from '../../../common/hbone/turn-shares.ts';

/** Turns that end when the test says so. */
function turns() {
  let end: (() => void) | undefined;
  const shares = new TurnShares((run) => {
    assert.equal(end, undefined, 'the end of a turn was asked for twice');
    end = run;
  });
  const endTurn = (): boolean => {
    const run = end;
    end = undefined;
    run?.();
    return run !== undefined;
  };
  return { shares, endTurn };
}

/** As AppSocket does. @returns the sockets that have written, in order */
function writers(shares: TurnShares) {
  const written: string[] = [];
  const write = (lane: Lane, name: string, pending = 100): void => {
    shares.busy(lane);
    if (shares.mayWrite(lane)) written.push(name);
    else shares.wait(lane, { pending, uncork: () => void written.push(name) } satisfies Corked);
  };
  return { written, write };
}

describe('a turn', () => {
  test('is all of one pod that is busy alone', () => {
    const { shares } = turns();
    const { written, write } = writers(shares);
    const lane = new Lane();
    for (let i = 0; i < 500; i++) write(lane, String(i));
    assert.equal(written.length, 500);
    assert.equal(shares.readEnough(32), false);
  });

  test('is shared by two: the greedy one waits, in order and for all of its writes, the other one does not', () => {
    const { shares, endTurn } = turns();
    const { written, write } = writers(shares);
    const [greedy, victim] = [new Lane(), new Lane()];
    write(victim, 'victim');
    for (let i = 0; i < 100; i++) write(greedy, String(i));
    assert.ok(written.length < 50, `${written.length} writes in one turn`);
    write(victim, 'victim');
    assert.equal(written.at(-1), 'victim');
    let ends = 0;
    while (endTurn()) {
      ends++;
      const before = written.length;
      write(victim, 'victim');
      assert.equal(written.length, before + 1);
      if (written.filter((name) => name !== 'victim').length === 100) break;
    }
    assert.deepEqual(
      written.filter((name) => name !== 'victim'),
      Array.from({ length: 100 }, (_, i) => String(i)),
    );
    assert.ok(ends >= 3, `over after ${ends} turns`);
    assert.equal(shares.readEnough(32), true);
  });

  test('counts large writes as several', () => {
    const { shares, endTurn } = turns();
    const { written, write } = writers(shares);
    const [greedy, victim] = [new Lane(), new Lane()];
    write(victim, 'victim');
    for (let i = 0; i < 30; i++) write(greedy, 'small');
    for (let i = 0; i < 10; i++) write(greedy, 'large', 1 << 20);
    endTurn();
    endTurn();
    assert.ok(written.filter((name) => name === 'large').length <= 2);
  });

  test('begins one connection of a pod where another one is busy, and all of them, in order, of one that is alone', () => {
    const { shares, endTurn } = turns();
    const { write } = writers(shares);
    const [greedy, victim] = [new Lane(), new Lane()];
    const begun: number[] = [];
    const all = Array.from({ length: 20 }, (_, i) => i);
    const begin = (): void => {
      for (const i of all) shares.begin(greedy, () => void begun.push(i));
    };
    begin();
    assert.deepEqual(begun.splice(0), all);
    write(victim, 'victim');
    begin();
    assert.equal(begun.length, 1);
    for (let before = begun.length; endTurn() && begun.length < all.length; before = begun.length) {
      write(victim, 'victim');
      assert.equal(begun.length - before, 1);
    }
    assert.deepEqual(begun, all);
  });

  test('is nobody else’s again a while after the other one has gone', () => {
    const { shares, endTurn } = turns();
    const { written, write } = writers(shares);
    const [one, other] = [new Lane(), new Lane()];
    write(other, 'other');
    for (let i = 0; i < 1000; i++) {
      write(one, 'one');
      endTurn();
    }
    written.length = 0;
    for (let i = 0; i < 100; i++) write(one, 'one');
    assert.equal(written.length, 100);
  });
});

test('a connection that was taken waits for its lane’s turn where several are busy', async () => {
  const [greedy, victim] = [new Lane(), new Lane()];
  for (const lane of [greedy, victim]) beginInTurn(lane, () => {});
  assert.equal(turnsAreShared(), true);
  let begun = 0;
  for (let i = 0; i < 5; i++) void turnToBegin(greedy)?.then(() => begun++);
  for (let turn = 1; turn <= 5; turn++) {
    assert.ok(begun <= turn, `${begun} in turn ${turn}`);
    await new Promise(setImmediate);
  }
  assert.equal(begun, 5);
});
