import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Cancellation } from '../../../common/base/cancellation.ts';

describe('a cancellation', () => {
  test('tells each listener once, in order, and later ones not at all', () => {
    const cancellation = new Cancellation();
    const heard: string[] = [];
    const taken = (): void => void heard.push('taken away');
    cancellation.addEventListener('abort', () => void heard.push('first'));
    cancellation.addEventListener('abort', taken);
    cancellation.addEventListener('abort', () => void heard.push('second'));
    cancellation.removeEventListener('abort', taken);
    cancellation.abort('why');
    cancellation.abort('again');
    cancellation.addEventListener('abort', () => void heard.push('late'));
    assert.deepEqual(heard, ['first', 'second']);
    assert.equal(cancellation.aborted, true);
    assert.equal(cancellation.reason, 'why');
  });

  test("is the same as Node's signal, whether that was asked for before the abort or after it", () => {
    const before = new Cancellation();
    const { signal } = before;
    assert.equal(signal.aborted, false);
    before.abort('why');
    const after = new Cancellation();
    after.abort('why');
    for (const seen of [signal, after.signal]) {
      assert.equal(seen.aborted, true);
      assert.equal(seen.reason, 'why');
    }
  });
});
