/**
 * What each pod gets of one turn of a thread's event loop. A turn serves every socket that is ready, so whoever has hundreds of busy
 * connections would make it as long as that, and a neighbour's one request waits for four of them. Where several pods are busy, each has a
 * number of writes in a turn, and what is beyond waits for the next one; a pod alone has all of it, and pays nothing (bench neighbours).
 */

/** A socket whose writes are kept until it is told to let go of them. */
export interface Corked {
  uncork(): void;
  /** Bytes that wait. */
  readonly pending: number;
}

/** A socket that has read as much as it may. */
export interface Resting {
  rested(): void;
}

/** Writes of one pod in a turn: about a tenth of a millisecond of it. With 24 a neighbour waited longer, with 4 no less (docs/performance.md). */
const WRITES = 8;
/** Waiting bytes that count as one write more. */
const WRITE_BYTES = 48 << 10;
/** Large reads of one socket in a turn, of the 32 that libuv would do. */
const READS = 8;
/** What beginning a connection counts as: a lane's whole turn, of a quarter of a millisecond. With two in a turn a neighbour waited longer. */
const BEGIN_WRITES = WRITES;
/** Turns in which the thread counts as shared after two pods were busy at once. */
const SHARED_TURNS = 256;

/** One pod's, or one peer's. */
export class Lane {
  readonly waiting: Corked[] = [];
  turn = -1;
  writes = 0;
}

export class TurnShares {
  /** Counts turns in which anything was written. */
  turn = 0;
  readonly #atTurnsEnd: (run: () => void) => void;
  readonly #end = (): void => this.#endTurn();
  #scheduled = false;
  /** Lanes that have something waiting. */
  #lanes: Lane[] = [];
  #resting: Resting[] = [];
  #last: Lane | undefined;
  #sharedUntil = -1;

  constructor(atTurnsEnd: (run: () => void) => void) {
    this.#atTurnsEnd = atTurnsEnd;
  }

  /** A socket of the lane reads or writes. */
  busy(lane: Lane): void {
    if (!this.#scheduled) {
      this.#scheduled = true;
      this.#atTurnsEnd(this.#end);
    }
    if (lane === this.#last) return;
    if (this.#last) this.#sharedUntil = this.turn + SHARED_TURNS;
    this.#last = lane;
  }

  get shared(): boolean {
    return this.turn <= this.#sharedUntil;
  }

  /** Begins a connection: at once where the lane has room for it, else when its turn comes. */
  begin(lane: Lane, run: () => void): void {
    this.busy(lane);
    if (this.mayWrite(lane, BEGIN_WRITES)) run();
    else this.wait(lane, { uncork: run, pending: (BEGIN_WRITES - 1) * WRITE_BYTES });
  }

  /** Whether the lane may write as much more in this turn. Where others of it wait already, it comes after them. */
  mayWrite(lane: Lane, writes = 1): boolean {
    if (!this.shared) return true;
    if (lane.waiting.length > 0) return false;
    if (lane.turn !== this.turn) {
      lane.turn = this.turn;
      lane.writes = 0;
    }
    lane.writes += writes;
    return lane.writes <= WRITES;
  }

  /** The socket is corked, and is uncorked when its lane's turn comes: at this turn's end at the earliest. */
  wait(lane: Lane, socket: Corked): void {
    if (lane.waiting.push(socket) === 1) this.#lanes.push(lane);
  }

  /** Whether a socket that has read so often in this turn should rest. */
  readEnough(reads: number): boolean {
    return reads >= READS && this.shared;
  }

  rest(socket: Resting): void {
    this.#resting.push(socket);
  }

  #endTurn(): void {
    this.#scheduled = false;
    this.turn++;
    const lanes = this.#lanes;
    this.#lanes = [];
    for (const lane of lanes) this.#serve(lane);
    const resting = this.#resting;
    this.#resting = [];
    for (const socket of resting) socket.rested();
  }

  #serve(lane: Lane): void {
    const { waiting } = lane;
    let room = this.shared ? WRITES : Infinity;
    let served = 0;
    while (served < waiting.length && room > 0) {
      const socket = waiting[served++];
      if (!socket) continue;
      room -= 1 + Math.floor(socket.pending / WRITE_BYTES);
      socket.uncork();
    }
    lane.turn = this.turn;
    lane.writes = this.shared ? WRITES - Math.max(0, room) : 0;
    waiting.splice(0, served);
    if (waiting.length === 0) return;
    this.#lanes.push(lane);
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#atTurnsEnd(this.#end);
  }
}
