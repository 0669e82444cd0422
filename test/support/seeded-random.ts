/** Random numbers that a seed makes again: a failure says its seed, and the same case can be run once more. */

/** A whole number from 0 to below `below`. */
export type Random = (below: number) => number;

/** From 0 to below 1; mulberry32: small, and the same everywhere. */
export function draws(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function randomOf(seed: number): Random {
  const draw = draws(seed);
  return (below) => Math.floor(draw() * below);
}

export const pick = <T>(random: Random, choices: readonly [T, ...T[]]): T => choices[random(choices.length)] ?? choices[0];
