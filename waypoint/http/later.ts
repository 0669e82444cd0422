/**
 * An answer that is told to whoever waits for it in the turn in which it comes. A promise tells it microtasks later, one for each stage: by then
 * the first bytes of its body have been copied away, because what they were read into is used again (bench waypoint: kept connections).
 */
import { SOON } from '../../common/base/soon.ts';
import type { Answer } from './context.ts';

type Next = (answer: Answer) => Answer | PromiseLike<Answer>;
type Otherwise = (reason: unknown) => Answer | PromiseLike<Answer>;

/** Settled once, and waited for by one. Failures are told a microtask later: whoever tries again must not do so from within what fails. */
export class Later implements PromiseLike<Answer> {
  #state: { readonly answer: Answer } | { readonly reason: unknown } | undefined;
  #told: ((answer: Answer) => void) | undefined;
  #failed: ((reason: unknown) => void) | undefined;

  resolve(answer: Answer): void {
    if (this.#state) return;
    this.#state = { answer };
    this.#told?.(answer);
  }

  reject(reason: unknown): void {
    if (this.#state) return;
    this.#state = { reason };
    if (this.#failed) void SOON.then(() => this.#failed?.(reason));
  }

  /** What the two do not catch is the fault of nobody who could be told. */
  whenSettled(told: (answer: Answer) => void, failed: (reason: unknown) => void): void {
    if (this.#told) throw new Error('somebody waits for this answer already');
    this.#told = told;
    this.#failed = failed;
    const state = this.#state;
    if (!state) return;
    if ('answer' in state) told(state.answer);
    else void SOON.then(() => failed(state.reason));
  }

  /** For `await`. */
  // biome-ignore lint/suspicious/noThenProperty: it stands where a promise may stand.
  then<A = Answer, B = never>(
    next?: ((answer: Answer) => A | PromiseLike<A>) | null,
    otherwise?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return new Promise<Answer>((resolve, reject) => this.whenSettled(resolve, reject)).then(next, otherwise);
  }
}

/** As `then` and `catch` of a promise. What the callbacks throw is what the result fails with. */
export function follow(answer: PromiseLike<Answer>, next: Next | undefined, otherwise: Otherwise | undefined): PromiseLike<Answer> {
  if (!(answer instanceof Later)) return answer.then(next, otherwise);
  const followed = new Later();
  answer.whenSettled(
    (good) => {
      if (next) settle(followed, next, good);
      else followed.resolve(good);
    },
    (reason) => {
      if (otherwise) settle(followed, otherwise, reason);
      else followed.reject(reason);
    },
  );
  return followed;
}

/** The end of a chain. Where `told` throws, `failed` is called. */
export function finish(answer: PromiseLike<Answer>, told: (answer: Answer) => void, failed: (reason: unknown) => void): void {
  const safely = (good: Answer): void => {
    try {
      told(good);
    } catch (reason) {
      failed(reason);
    }
  };
  if (answer instanceof Later) answer.whenSettled(safely, failed);
  else answer.then(safely, failed);
}

function settle<T>(followed: Later, make: (from: T) => Answer | PromiseLike<Answer>, from: T): void {
  let made: Answer | PromiseLike<Answer>;
  try {
    made = make(from);
  } catch (reason) {
    followed.reject(reason);
    return;
  }
  if ('then' in made)
    finish(
      made,
      (answer) => followed.resolve(answer),
      (reason) => followed.reject(reason),
    );
  else followed.resolve(made);
}
