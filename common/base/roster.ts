/**
 * A crowd whose members come and go all the time, in no order. A `Set` or a `Map` makes itself a new table every few dozen changes, and each old
 * table holds the next one: as soon as one of them is old enough, V8's young collections free nothing any more of what the later ones hold,
 * whole connections above all, until a full one does (bench ztunnel, new connections).
 */

export interface Member {
  /** Where it is in its roster, which alone writes it; in none, -1. */
  place: number;
}

export class Roster<T extends Member> {
  readonly #members: T[] = [];

  get size(): number {
    return this.#members.length;
  }

  /** One that is here already stays where it is. It may be in one roster only. */
  add(member: T): void {
    if (this.#members[member.place] === member) return;
    member.place = this.#members.push(member) - 1;
  }

  /** @returns whether it was here */
  delete(member: T): boolean {
    const members = this.#members;
    const { place } = member;
    if (members[place] !== member) return false;
    const last = members.pop();
    if (last && last !== member) {
      members[place] = last;
      last.place = place;
    }
    member.place = -1;
    return true;
  }

  /** Those who are here now; members may leave meanwhile. */
  all(): T[] {
    return [...this.#members];
  }
}
