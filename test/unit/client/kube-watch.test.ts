import assert from 'node:assert/strict';
import { test } from 'node:test';
import { minutes, seconds } from '../../../common/base/clock.ts';
import { KubeApiError, type KubeObject, type ListPage, type Query, type WatchEvent } from '../../../common/client/kube-api.ts';
import { keepIdentity, type ObjectChange, type WatchableApi, watchObjects } from '../../../common/client/kube-watch.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { recordingLog } from '../../support/recording-log.ts';

const pod = (name: string, version: number, uid = `uid-${name}`, more: object = {}): KubeObject => ({
  metadata: { name, namespace: 'shop', uid, resourceVersion: String(version), managedFields: [{}] },
  ...more,
});

interface OpenWatch {
  readonly query: Query;
  readonly signal: AbortSignal;
  event(type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK', object: KubeObject): void;
  end(error?: Error): void;
}

/** An API whose lists and watches the test answers one by one. */
class ScriptedApi implements WatchableApi {
  readonly lists: (ListPage<KubeObject> | Error)[] = [];
  readonly listQueries: Query[] = [];
  readonly watches: OpenWatch[] = [];

  async listPage<T>(_path: string, query: Query = {}): Promise<ListPage<T>> {
    this.listQueries.push(query);
    const next = this.lists.shift();
    if (!next) throw new Error('connect ECONNREFUSED');
    if (next instanceof Error) throw next;
    return structuredClone(next) as ListPage<unknown> as ListPage<T>;
  }

  watch<T>(_path: string, query: Query, onEvent: (event: WatchEvent<T>) => void, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason));
      this.watches.push({
        query,
        signal,
        event: (type, object) => onEvent({ type, object: structuredClone(object) as unknown as T }),
        end: (error) => (error ? reject(error) : resolve()),
      });
    });
  }

  get current(): OpenWatch {
    const watch = this.watches.at(-1);
    assert.ok(watch, 'no watch is open');
    return watch;
  }
}

const page = (items: KubeObject[], resourceVersion: number, next = ''): ListPage<KubeObject> => ({
  items,
  resourceVersion: String(resourceVersion),
  continue: next,
});
const expired = new KubeApiError(410, 'Expired', 'too old');
const absent = new KubeApiError(404, 'NotFound', 'no such type');

function start(
  lists: (ListPage<KubeObject> | Error)[],
  options: {
    keep?: typeof keepIdentity;
    inScope?: (object: KubeObject) => boolean;
    onChange?: (change: ObjectChange<KubeObject>) => void;
  } = {},
) {
  const api = new ScriptedApi();
  api.lists.push(...lists);
  const clock = new FakeClock();
  const abort = new AbortController();
  const changes: string[] = [];
  const seen: ObjectChange<KubeObject>[] = [];
  const log = recordingLog();
  let synced = 0;
  const store = watchObjects<KubeObject>(api, {
    path: '/api/v1/pods',
    clock,
    random: () => 0.5,
    log,
    signal: abort.signal,
    ...(options.keep && { keep: options.keep }),
    ...(options.inScope && { inScope: options.inScope }),
    onSynced: () => void synced++,
    onChange(change) {
      changes.push(`${change.type} ${change.object.metadata.name}@${change.object.metadata.resourceVersion}`);
      seen.push(change);
      options.onChange?.(change);
    },
  });
  return {
    api,
    clock,
    store,
    changes,
    seen,
    log,
    abort,
    get synced() {
      return synced;
    },
  };
}

test('a list comes page by page, then a watch from its version with bookmarks', async () => {
  const run = start([page([pod('a', 1), pod('b', 2)], 9, 'more'), page([pod('c', 3)], 10)]);
  await run.clock.advance(0);
  assert.deepEqual(run.changes, ['added a@1', 'added b@2', 'added c@3']);
  assert.deepEqual(
    run.api.listQueries.map((query) => query.continue),
    [undefined, 'more'],
  );
  assert.equal(run.synced, 1);
  assert.equal(run.store.synced, true);
  assert.equal(run.store.get('shop/b')?.metadata.resourceVersion, '2');
  assert.equal(run.api.current.query.resourceVersion, '10');
  assert.equal(run.api.current.query.allowWatchBookmarks, true);
});

test('events become changes, in order and with what was before', async () => {
  const run = start([page([pod('a', 1)], 1)]);
  await run.clock.advance(0);
  run.api.current.event('MODIFIED', pod('a', 2));
  run.api.current.event('ADDED', pod('b', 3));
  run.api.current.event('DELETED', pod('a', 4));
  assert.deepEqual(run.changes, ['added a@1', 'modified a@2', 'added b@3', 'deleted a@4']);
  assert.equal(run.seen[1]?.previous?.metadata.resourceVersion, '1');
  assert.deepEqual(
    [...run.store.values()].map(({ metadata }) => metadata.name),
    ['b'],
  );
  assert.equal(run.seen[0]?.object.metadata.managedFields, undefined);
});

test('an event that was seen already is no change', async () => {
  const run = start([page([pod('a', 5)], 5)]);
  await run.clock.advance(0);
  run.api.current.event('ADDED', pod('a', 5));
  run.api.current.event('DELETED', pod('never-seen', 6));
  assert.deepEqual(run.changes, ['added a@5']);
});

test('another object of the same name is a deletion and an addition', async () => {
  const run = start([page([pod('a', 1, 'first')], 1)]);
  await run.clock.advance(0);
  run.api.current.event('MODIFIED', pod('a', 2, 'second'));
  assert.deepEqual(run.changes, ['added a@1', 'deleted a@1', 'added a@2']);
});

test('a watch that ends goes on from the last version, a bookmark included', async () => {
  const run = start([page([], 1)]);
  await run.clock.advance(0);
  run.api.current.event('ADDED', pod('a', 7));
  run.api.current.event('BOOKMARK', { metadata: { resourceVersion: '20' } });
  await run.clock.advance(seconds(10));
  run.api.current.end();
  await run.clock.advance(0);
  assert.equal(run.api.watches.length, 2);
  assert.equal(run.api.current.query.resourceVersion, '20');
  assert.equal(run.api.listQueries.length, 1);
});

test('a watch that ends at once, again and again, is not asked in a tight loop', async () => {
  const run = start([page([], 1)]);
  await run.clock.advance(0);
  for (let i = 0; i < 100 && run.clock.monotonic() < seconds(60); i++) {
    run.api.current.end();
    await run.clock.advance(500);
  }
  assert.ok(run.api.watches.length < 15, `${run.api.watches.length} watches in a minute`);
});

test('an expired version is answered by a new list, and what vanished is reported as deleted, first', async () => {
  const run = start([page([pod('a', 1), pod('b', 2)], 2)]);
  await run.clock.advance(0);
  run.api.lists.push(page([pod('b', 2), pod('c', 8)], 9));
  run.api.current.end(expired);
  await run.clock.advance(seconds(1));
  assert.deepEqual(run.changes.slice(2), ['deleted a@1', 'added c@8']);
  assert.equal(run.api.current.query.resourceVersion, '9');
  assert.equal(run.synced, 1);
});

test('a list that expires between two pages starts again', async () => {
  const run = start([page([pod('a', 1)], 1, 'more'), expired, page([pod('a', 1)], 3)]);
  await run.clock.advance(seconds(1));
  assert.deepEqual(run.changes, ['added a@1']);
  assert.equal(run.api.current.query.resourceVersion, '3');
});

test('a server that cannot be reached is asked for ever, with growing waits', async () => {
  const run = start([]);
  await run.clock.advance(minutes(10));
  const attempts = run.api.listQueries.length;
  assert.ok(attempts > 15 && attempts < 40, `${attempts} attempts in ten minutes`);
  assert.equal(run.store.synced, false);
  run.api.lists.push(page([pod('a', 1)], 1));
  await run.clock.advance(seconds(40));
  assert.deepEqual(run.changes, ['added a@1']);
});

test('silence ends a watch, and bookmarks are no silence', async () => {
  const run = start([page([], 1)]);
  await run.clock.advance(0);
  for (let i = 0; i < 5; i++) {
    await run.clock.advance(minutes(2));
    run.api.current.event('BOOKMARK', { metadata: { resourceVersion: String(50 + i) } });
  }
  assert.equal(run.api.watches.length, 1);
  await run.clock.advance(minutes(3) + seconds(9));
  assert.equal(run.api.watches.length, 1);
  await run.clock.advance(seconds(2));
  assert.equal(run.api.watches.length, 2);
  assert.equal(run.api.current.query.resourceVersion, '54');
  assert.equal(run.api.watches[0]?.signal.aborted, true);
});

test('a process that did not run for minutes reads what has come meanwhile before it thinks a watch dead', async () => {
  const run = start([page([], 1)]);
  await run.clock.advance(0);
  await run.clock.advance(minutes(3));
  // The timer was due first, then the socket is read.
  run.api.current.event('BOOKMARK', { metadata: { resourceVersion: '50' } });
  await run.clock.advance(minutes(1));
  assert.equal(run.api.watches.length, 1);
  assert.equal(run.api.watches[0]?.signal.aborted, false);
});

test('what comes into scope or leaves it is reported as if it came or went, in lists and in watches', async () => {
  let shown = ['a'];
  const run = start([page([pod('a', 1), pod('b', 2)], 2)], { inScope: ({ metadata }) => shown.includes(metadata.name ?? '') });
  await run.clock.advance(0);
  assert.deepEqual(run.changes, ['added a@1']);
  run.api.current.event('ADDED', pod('c', 3));
  shown = ['b', 'c'];
  run.api.lists.push(page([pod('a', 1), pod('b', 2), pod('c', 3)], 3));
  run.store.review();
  await run.clock.advance(0);
  assert.deepEqual(run.changes, ['added a@1', 'deleted a@1', 'added b@2', 'added c@3']);
  shown = ['b'];
  run.api.current.event('MODIFIED', pod('c', 4));
  assert.equal(run.changes.at(-1), 'deleted c@4');
  assert.equal(run.api.current.query.resourceVersion, '3');
});

test('a type that the cluster does not have is an empty store, asked for every ten seconds', async () => {
  const run = start([absent, absent, absent]);
  await run.clock.advance(0);
  assert.equal(run.store.synced, true);
  assert.equal(run.synced, 1);
  await run.clock.advance(seconds(9));
  assert.equal(run.api.listQueries.length, 1);
  run.api.lists.length = 0;
  run.api.lists.push(page([pod('a', 1)], 1));
  await run.clock.advance(seconds(2));
  assert.deepEqual(run.changes, ['added a@1']);
});

test('a type that is taken out of the cluster takes its objects with it', async () => {
  const run = start([page([pod('a', 1)], 1)]);
  await run.clock.advance(0);
  run.api.current.end(absent);
  await run.clock.advance(seconds(1));
  assert.deepEqual(run.changes, ['added a@1', 'deleted a@1']);
});

test('a handler that throws is logged and the watch goes on', async () => {
  const run = start([page([pod('a', 1), pod('b', 2)], 2)], {
    onChange: ({ object }) => {
      if (object.metadata.name === 'a') throw new Error('handler bug');
    },
  });
  await run.clock.advance(0);
  run.api.current.event('ADDED', pod('c', 3));
  assert.deepEqual(run.changes, ['added a@1', 'added b@2', 'added c@3']);
  const [entry] = run.log.entries.filter(({ level }) => level === 'error');
  assert.equal(entry?.message, 'handler of a change failed');
  assert.equal(entry?.fields.object, 'shop/a');
});

test('the server says how long to wait, and that is waited', async () => {
  const run = start([new KubeApiError(429, 'TooManyRequests', 'slow down', seconds(20)), page([], 1)]);
  await run.clock.advance(seconds(19));
  assert.equal(run.api.listQueries.length, 1);
  await run.clock.advance(seconds(2));
  assert.equal(run.store.synced, true);
});

test('what the store keeps can be less than what handlers see', async () => {
  const run = start([page([pod('a', 1, 'u', { spec: { big: true } })], 1)], { keep: keepIdentity });
  await run.clock.advance(0);
  assert.deepEqual(run.seen[0]?.object.spec, { big: true });
  assert.deepEqual(run.store.get('shop/a'), { metadata: { name: 'a', namespace: 'shop', uid: 'u', resourceVersion: '1' } });
});

test('an aborted watch ends, whether listing, watching or waiting, and leaves no timer', async () => {
  for (const lists of [[page([], 1)], []]) {
    const run = start(lists);
    await run.clock.advance(0);
    run.abort.abort(new Error('over'));
    await run.clock.advance(0);
    const [asked, watched] = [run.api.listQueries.length, run.api.watches.length];
    await run.clock.advance(minutes(10));
    assert.deepEqual([run.api.listQueries.length, run.api.watches.length], [asked, watched]);
    assert.equal(run.clock.pending, 0);
  }
});

test('a first list that breaks off between two pages is begun again, and what vanished meanwhile is said to be gone', async () => {
  const run = start([page([pod('a', 1), pod('b', 2)], 5, 'more'), expired, page([pod('b', 2), pod('c', 3)], 9)]);
  await run.clock.advance(0);
  assert.deepEqual(run.changes, ['added a@1', 'added b@2'], 'each page as it comes');
  assert.equal(run.synced, 0);
  await run.clock.advance(seconds(2));
  assert.deepEqual(run.changes.slice(2), ['deleted a@1', 'added c@3']);
  assert.equal(run.synced, 1);
  run.abort.abort(new Error('done'));
});
