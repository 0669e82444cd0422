/** What a bench has open, namespaces and programs, so that one that is ended by a signal leaves nothing behind. */
import { constants } from 'node:os';
import type { TestContext } from 'node:test';

const open = new Set<AsyncDisposableStack>();

/** For `await using`. */
export function unwindable(): AsyncDisposableStack {
  const stack = new AsyncDisposableStack();
  open.add(stack);
  stack.defer(() => void open.delete(stack));
  return stack;
}

/** As much of a test's context as the fixtures of tests want. */
export const testContext = (stack: AsyncDisposableStack): TestContext =>
  ({ after: (end: () => unknown) => stack.defer(async () => void (await end())) }) as unknown as TestContext;

/** From here on SIGINT and SIGTERM end what is open, the last first, and then the process. */
export function unwindOnSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, async () => {
      console.error(`bench: ended by ${signal}`);
      // What the bench says of programs that are gone under it is no news.
      process.on('uncaughtException', () => undefined);
      try {
        for (const stack of [...open].reverse()) await stack.disposeAsync();
      } finally {
        process.exit(128 + constants.signals[signal]);
      }
    });
}
