/** What a bench has open, namespaces and programs, so that one that is ended by a signal leaves nothing behind. */
import { constants } from 'node:os';
import type { TestContext } from 'node:test';

const open = new Set<AsyncDisposableStack>();
let watching = false;

/** For `await using`. From the first one on, SIGINT and SIGTERM end what is open and then the process. */
export function unwindable(): AsyncDisposableStack {
  const stack = new AsyncDisposableStack();
  open.add(stack);
  stack.defer(() => void open.delete(stack));
  // Not before: a bench that never waits would not hear of its signal.
  if (!watching) for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, unwind);
  watching = true;
  return stack;
}

/** As much of a test's context as the fixtures of tests want. */
export const testContext = (stack: AsyncDisposableStack): TestContext =>
  ({ after: (end: () => unknown) => stack.defer(async () => void (await end())) }) as unknown as TestContext;

/** The last first. */
async function unwind(signal: 'SIGINT' | 'SIGTERM'): Promise<void> {
  console.error(`bench: ended by ${signal}`);
  // What the bench says of programs that are gone under it is no news.
  process.on('uncaughtException', () => undefined);
  try {
    for (const stack of [...open].reverse()) await stack.disposeAsync();
  } finally {
    process.exit(128 + constants.signals[signal]);
  }
}
