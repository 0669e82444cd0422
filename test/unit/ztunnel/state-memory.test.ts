/** The layers under the packed state: blocks, the index, the cache of decoded objects, and readers in other threads. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { Arena, ArenaFull, kinds, sizeClass, UNIT } from '../../../common/state/arena.ts';
import { BlockCache } from '../../../common/state/block-cache.ts';
import { hashText, keyKinds } from '../../../common/state/hash.ts';
import { IndexWriter, indexEntries, scanIndex } from '../../../common/state/index-table.ts';
import { MeshStateWriter } from '../../../common/state/writer.ts';
import { workload } from '../../support/builders.ts';
import { addressPush } from '../../support/meshes.ts';

describe('size classes', () => {
  test('waste less than a sixteenth and grow with the size', () => {
    for (let units = 1; units < 5000; units++) {
      const size = sizeClass(units);
      assert.ok(size >= units && size <= Math.ceil(units * 1.0625), `${units} -> ${size}`);
      assert.ok(sizeClass(size) === size, `${size} is no class`);
      assert.ok(sizeClass(units + 1) >= size);
    }
  });
});

describe('an arena', () => {
  test('never hands out memory twice, and hands out again what nobody can see', () => {
    const sizes = fc.array(fc.tuple(fc.integer({ min: 0, max: 300 }), fc.boolean()), { minLength: 1, maxLength: 80 });
    fc.assert(
      fc.property(sizes, (steps) => {
        const arena = new Arena(4 << 20);
        const live = new Map<number, number>();
        let generation = 0;
        for (const [bytes, drop] of steps) {
          const ref = arena.allocate(kinds.list, bytes);
          const end = ref + (arena.u32[ref * 2] ?? 0);
          for (const [start, stop] of live) assert.ok(end <= start || ref >= stop, 'overlap');
          live.set(ref, end);
          const [oldest] = live.keys();
          if (!drop || oldest === undefined) continue;
          arena.retire(oldest);
          arena.seal(++generation);
          arena.reclaim(generation);
          live.delete(oldest);
        }
        assert.equal(arena.retiredBytes, 0);
        assert.equal(
          arena.usedBytes,
          [...live].reduce((sum, [start, stop]) => sum + (stop - start) * UNIT, 0),
        );
      }),
    );
  });

  test('keeps a block as long as a picture that has it is pinned', () => {
    const arena = new Arena(1 << 20);
    const ref = arena.allocate(kinds.list, 100);
    arena.retire(ref);
    arena.seal(5);
    arena.reclaim(4);
    assert.notEqual(arena.allocate(kinds.list, 100), ref);
    arena.reclaim(5);
    assert.equal(arena.allocate(kinds.list, 100), ref);
  });

  test('gives every block a serial that none had before, also when its memory is used again', () => {
    const arena = new Arena(1 << 20);
    const ref = arena.allocate(kinds.list, 8);
    const before = arena.serial(ref);
    arena.discard(ref);
    assert.equal(arena.allocate(kinds.list, 8), ref);
    assert.ok(arena.serial(ref) > before);
  });

  test('says when it is full', () => {
    const arena = new Arena(10_000);
    assert.throws(() => {
      for (;;) arena.allocate(kinds.list, 1000);
    }, ArenaFull);
  });
});

describe('the index', () => {
  test('holds what a multimap holds, through any adding, removing and growing, and its published pictures stay', () => {
    // Few hashes and a table of few distinct homes, so that probes run into each other and around the end.
    const hash = fc.oneof(fc.constantFrom(0, 1, 511, 510, 0xfffffdff, 0xffffffff), fc.nat(4000));
    const operations = fc.array(fc.tuple(fc.constantFrom('add' as const, 'add' as const, 'remove' as const, 'seal' as const), hash), {
      minLength: 1,
      maxLength: 900,
    });
    fc.assert(
      fc.property(operations, (steps) => {
        const arena = new Arena(8 << 20);
        const index = new IndexWriter(arena);
        const held: { hash: number; ref: number }[] = [];
        const pictures: { root: ReturnType<IndexWriter['seal']>; expected: string[] }[] = [];
        let next = 1;
        for (const [operation, value] of steps) {
          if (operation === 'add') {
            held.push({ hash: value, ref: next });
            index.add(value, next++);
          } else if (operation === 'remove') {
            const [gone] = held.splice(value % Math.max(1, held.length), 1);
            if (gone) index.remove(gone.hash, gone.ref);
          } else if (pictures.length < 3) {
            pictures.push({ root: index.seal(), expected: held.map(entryText).sort() });
          }
        }
        pictures.push({ root: index.seal(), expected: held.map(entryText).sort() });
        for (const { root, expected } of pictures) assert.deepEqual([...indexEntries(arena, root)].map(entryText).sort(), expected);
        const { root } = pictures.at(-1) ?? assert.fail();
        for (const value of new Set(held.map((entry) => entry.hash))) {
          const found: number[] = [];
          scanIndex(arena, root, value, (ref) => {
            found.push(ref);
            return false;
          });
          assert.deepEqual(
            found.sort(),
            held
              .filter((entry) => entry.hash === value)
              .map(({ ref }) => ref)
              .sort(),
          );
        }
        assert.equal(index.count, held.length);
      }),
      { numRuns: 40 },
    );
  });

  test('spreads like names over the table', () => {
    const buckets = new Uint32Array(256);
    for (let i = 0; i < 25_600; i++) {
      const bucket = hashText(7, keyKinds.workloadUid, `Kubernetes//Pod/shop/api-${i}`) & 255;
      buckets[bucket] = (buckets[bucket] ?? 0) + 1;
    }
    assert.ok(Math.max(...buckets) < 160 && Math.min(...buckets) > 50, `${Math.min(...buckets)} to ${Math.max(...buckets)}`);
    assert.notEqual(hashText(1, keyKinds.policy, 'a'), hashText(2, keyKinds.policy, 'a'));
  });
});

const entryText = ({ hash, ref }: { hash: number; ref: number }): string => `${hash}:${ref}`;

describe('the cache of decoded objects', () => {
  test('keeps no more than its limit, and what is used stays', () => {
    const arena = new Arena(1 << 20);
    const refs = Array.from({ length: 100 }, () => arena.allocate(kinds.list, 8));
    const cache = new BlockCache<number>(arena, 20);
    const [hot = 0] = refs;
    let decoded = 0;
    for (const ref of refs) {
      cache.get(ref, () => ref);
      cache.get(hot, () => ++decoded);
    }
    assert.ok(cache.size <= 20);
    assert.equal(decoded, 0, 'the one that was used all the time was decoded once, at first');
  });

  test('does not take a block that was used again for the one that was there', () => {
    const arena = new Arena(1 << 20);
    const cache = new BlockCache<string>(arena, 20);
    const ref = arena.allocate(kinds.list, 8);
    assert.equal(
      cache.get(ref, () => 'first'),
      'first',
    );
    arena.discard(ref);
    assert.equal(arena.allocate(kinds.list, 8), ref);
    assert.equal(
      cache.get(ref, () => 'second'),
      'second',
    );
  });
});

describe('a reader in another thread', () => {
  test('sees each push as a whole or not at all, while the writer goes on', { timeout: 20_000 }, async (t) => {
    const writer = new MeshStateWriter({ maxBytes: 64 << 20 });
    const all = (round: number): ReturnType<typeof workload>[] =>
      Array.from({ length: 40 }, (_, i) =>
        workload({ name: `pod-${i}`, addresses: [`10.0.0.${i}`], canonicalRevision: `${round}`, hostname: 'x'.repeat(round % 50) }),
      );
    writer.apply(addressPush({ workloads: all(0) }));
    const worker = new Worker(new URL('../../support/state-reader-thread.ts', import.meta.url), {
      workerData: { shared: writer.shared, pods: 40 },
    });
    t.after(() => worker.terminate());
    const report = new Promise<{ pictures: number; torn: number; last: number }>((resolve, reject) => {
      worker.once('error', reject);
      worker.on('message', (message) => (message === 'ready' ? push() : resolve(message)));
    });
    const push = (): void => {
      for (let round = 1; round <= 150; round++) writer.apply(addressPush({ workloads: all(round) }));
      worker.postMessage('stop');
    };
    const { pictures, torn, last } = await report;
    assert.equal(torn, 0);
    assert.equal(last, 150);
    assert.ok(pictures >= 2, `it saw ${pictures} pictures`);
  });
});
