/** Answers that are told in the turn in which they come, and failures that are not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Answer } from '../../../waypoint/http/context.ts';
import { finish, follow, Later } from '../../../waypoint/http/later.ts';

const answerOf = (status: number): Answer => ({ head: { status, fields: [], bodyBytes: 0 }, body: undefined });
const unexpected = (): never => assert.fail('not to be called');

test('an answer has passed all who follow it when resolve returns', () => {
  const later = new Later();
  const told: number[] = [];
  const followed = follow(follow(later, undefined, unexpected), ({ head }) => answerOf(head.status + 1), unexpected);
  finish(followed, ({ head }) => void told.push(head.status), unexpected);
  later.resolve(answerOf(200));
  later.resolve(answerOf(500));
  assert.deepEqual(told, [201]);
});

test('a failure is told only when whoever failed has returned', async () => {
  const later = new Later();
  const told: unknown[] = [];
  finish(follow(later, unexpected, undefined), unexpected, (reason) => void told.push(reason));
  later.reject('lost');
  assert.deepEqual(told, []);
  await new Promise(setImmediate);
  assert.deepEqual(told, ['lost']);
});

test('what a follower makes of a failure may take its time', async () => {
  const later = new Later();
  const followed = follow(later, unexpected, async () => answerOf(503));
  later.reject('lost');
  assert.equal((await followed).head.status, 503);
});

test('what a follower throws is a failure for those behind it, and never for whoever resolves', async () => {
  const later = new Later();
  const faulty = (): never => {
    throw new Error('a fault');
  };
  const told: unknown[] = [];
  finish(follow(later, faulty, undefined), unexpected, (reason) => void told.push(reason));
  const last = new Later();
  finish(last, faulty, (reason) => void told.push(reason));
  later.resolve(answerOf(200));
  last.resolve(answerOf(200));
  await new Promise(setImmediate);
  assert.deepEqual(told.map(String), ['Error: a fault', 'Error: a fault']);
});

test('it can be awaited, settled before or after, and a promise can be followed like it', async () => {
  const [early, late, lost] = [new Later(), new Later(), new Later()];
  early.resolve(answerOf(200));
  lost.reject(new Error('lost'));
  setImmediate(() => late.resolve(answerOf(201)));
  assert.deepEqual([(await early).head.status, (await late).head.status], [200, 201]);
  await assert.rejects(async () => await lost, /lost/);
  const followed = follow(Promise.resolve(answerOf(200)), ({ head }) => answerOf(head.status + 4), unexpected);
  assert.equal((await followed).head.status, 204);
});
