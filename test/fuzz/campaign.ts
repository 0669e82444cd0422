/** How long a fuzzer runs and from which seed: as its program's arguments say, or as a unit test does that runs it for a moment. */
import { pathToFileURL } from 'node:url';

/** One case. @throws what it should not */
export type FuzzCase = (seed: number) => Promise<void>;

/** @returns how many cases there were. @throws naming the seed of the one that failed */
export async function fuzzFor(milliseconds: number, firstSeed: number, fuzzOnce: FuzzCase): Promise<number> {
  const until = performance.now() + milliseconds;
  let count = 0;
  while (performance.now() < until) {
    const seed = firstSeed + count++;
    try {
      await fuzzOnce(seed);
    } catch (error) {
      throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error });
    }
  }
  return count;
}

/** Where the module is the program: `[SECONDS] [SEED]`. */
export async function runAsProgram(moduleUrl: string, fuzzOnce: FuzzCase): Promise<void> {
  if (!isProgram(moduleUrl)) return;
  const seed = seedOf(process.argv[3]);
  console.log(`${await fuzzFor(secondsOf(process.argv[2], 10) * 1000, seed, fuzzOnce)} cases from seed ${seed}`);
}

export const isProgram = (moduleUrl: string): boolean => moduleUrl === pathToFileURL(process.argv[1] ?? '').href;

/** @throws {Error} for what is no time: a fuzzer that tries nothing would say that it found nothing */
export function secondsOf(text: string | undefined, otherwise: number): number {
  const seconds = text === undefined ? otherwise : Number(text);
  if (!(seconds > 0)) throw new Error(`${JSON.stringify(text)}: expected how many seconds to fuzz`);
  return seconds;
}

/** @throws {Error} for what is no number */
export function seedOf(text: string | undefined): number {
  const seed = text === undefined ? Date.now() % 1_000_000_000 : Number(text);
  if (!Number.isInteger(seed)) throw new Error(`${JSON.stringify(text)}: expected a seed, a whole number`);
  return seed;
}
