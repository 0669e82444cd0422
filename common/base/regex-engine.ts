/** Regular expressions that users write must not be able to stop a proxy. */
import { setFlagsFromString } from 'node:v8';

/**
 * From now on V8 gives an expression that backtracks too much to its linear engine: `(a+)+b` on 28 letters takes milliseconds instead of a
 * minute. For expressions without the flag `u` only. Process-wide; called before the first expression is compiled.
 */
export function boundBacktracking(): void {
  setFlagsFromString('--enable-experimental-regexp-engine-on-excessive-backtracks');
}
