import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type AnnotationChanges, PodVoice, PROBLEM, REDIRECTION } from '../../../cni/enrol/pod-voice.ts';
import { silentLog } from '../../../common/base/log.ts';

function setUp() {
  const patches: AnnotationChanges[] = [];
  const ends: ((error?: Error) => void)[] = [];
  const events: string[] = [];
  const annotate = (_pod: unknown, changes: AnnotationChanges): Promise<void> => {
    patches.push(changes);
    return new Promise((resolve, reject) => ends.push((error) => (error ? reject(error) : resolve())));
  };
  const parts = {
    log: silentLog,
    annotate,
    event: (_pod: unknown, type: string, message: string) => void events.push(`${type} ${message}`),
  };
  return { patches, ends, events, voice: new PodVoice(parts, { metadata: { name: 'orders', namespace: 'shop' } }, {}) };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a problem that is over while it is still being written is taken back', async () => {
  const { patches, ends, voice } = setUp();
  voice.report('no ztunnel is connected');
  await turn();
  const solved = voice.annotate({ [REDIRECTION]: 'enabled', [PROBLEM]: undefined });
  await turn();
  assert.equal(patches.length, 1, 'one after the other');
  ends.shift()?.();
  await turn();
  ends.shift()?.();
  await solved;
  assert.deepEqual(patches, [{ [PROBLEM]: 'no ztunnel is connected' }, { [REDIRECTION]: 'enabled', [PROBLEM]: null }]);
});

test('a change that failed is told to who wanted it, and the next one starts from what is there', async () => {
  const { patches, ends, voice } = setUp();
  const first = voice.annotate({ [REDIRECTION]: 'pending' });
  await turn();
  ends.shift()?.(new Error('away'));
  await assert.rejects(first, /away/);
  const second = voice.annotate({ [REDIRECTION]: 'pending' });
  await turn();
  ends.shift()?.();
  await second;
  assert.equal(patches.length, 2);
  await voice.annotate({ [REDIRECTION]: 'pending' });
  assert.equal(patches.length, 2, 'what is so is not written again');
});

test('events are written once for each sentence, problems again when they come back', () => {
  const { events, voice } = setUp();
  voice.note('it has a sidecar');
  voice.note('it has a sidecar');
  voice.note('connections from before', 'Normal');
  voice.report('x');
  voice.report('x');
  voice.solved();
  voice.report('x');
  assert.deepEqual(events, ['Warning it has a sidecar', 'Normal connections from before', 'Warning x', 'Warning x']);
});
