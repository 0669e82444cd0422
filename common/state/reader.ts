/**
 * A data worker's view of the mesh. It looks at one picture until `refresh`, so all decisions of one turn of the event loop agree; the
 * supervisor's message that something changed is the usual occasion to call it. A reader that never refreshes keeps old blocks from being
 * used again, so an idle worker refreshes too.
 */
import { ArenaView } from './arena.ts';
import { PackedView } from './packed-view.ts';
import { readRoot } from './records.ts';
import { Pin, type SharedMeshState } from './shared.ts';

/** How a reader differs from the others. */
export interface MeshStateReaderOptions {
  /** Name of the node that we run on (see PackedViewOptions). */
  readonly node?: string | undefined;
  readonly cacheEntries?: number | undefined;
}

/** MeshView over shared memory, for one thread. */
export class MeshStateReader extends PackedView {
  readonly #pin: Pin;
  #generation: number;

  /** @throws Error where the state has too many readers */
  constructor(shared: SharedMeshState, options: MeshStateReaderOptions = {}) {
    const pin = new Pin(shared.control);
    const { generation, root } = pin.move();
    const arena = new ArenaView(shared.arena);
    super({ arena, seed: pin.seed, root: readRoot(arena, root), ...options });
    this.#pin = pin;
    this.#generation = generation;
  }

  /** Number of the picture that this reader looks at; the writer counts up by one with each push that changed something. */
  get generation(): number {
    return this.#generation;
  }

  /** Moves to the newest picture. @returns whether there was a newer one */
  refresh(): boolean {
    const before = this.#generation;
    const { generation, root } = this.#pin.move();
    if (generation === before) return false;
    this.arena.renew();
    this.root = readRoot(this.arena, root);
    this.#generation = generation;
    return true;
  }

  /** Lets go of the shared state; the reader must not be used afterwards. */
  close(): void {
    this.#pin.release();
  }
}
