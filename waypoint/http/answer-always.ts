/** The outermost stage: whatever comes of a request, the client has an answer, and an operator a line and numbers. */

import { errorMessage, ProxyError } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { changedFields } from '../../common/decision/authorizer.ts';
import { AttemptFailed } from './attempt.ts';
import type { Answer, RequestContext, Stage } from './context.ts';
import { follow } from './later.ts';
import { errorAnswer } from './local-answer.ts';

/** Turns what went wrong into an answer; the line itself is written when the answer has been delivered (deliver.ts, telemetry). */
export function answerAlways({ log }: { readonly log: Pick<Log, 'error'> }): Stage {
  const failed = (request: RequestContext, reason: unknown): Answer => {
    const error = request.cancelled ?? AttemptFailed.errorOf(reason);
    if (!(reason instanceof ProxyError) && !(reason instanceof AttemptFailed)) {
      log.error({ id: request.traceId, error: errorMessage(reason) }, 'request handler failed');
    }
    request.error = error;
    return withFields(errorAnswer(request, error), request.limitFields);
  };
  // No async function: the frame that it keeps is dearer than two callbacks.
  return (next) => (request) => {
    let answer: PromiseLike<Answer>;
    try {
      answer = next(request);
    } catch (reason) {
      return Promise.resolve(failed(request, reason));
    }
    return follow(
      answer,
      (good) => ownAnswer(request, good),
      (reason) => failed(request, reason),
    );
  };
}

function ownAnswer({ answerFields, limitFields, responseChanges }: RequestContext, answer: Answer): Answer {
  const { fields } = answer.head;
  const own = responseChanges ? changedFields(withoutOurs(fields), responseChanges) : withoutOurs(fields);
  const clean = own === fields ? answer : { ...answer, head: { ...answer.head, fields: own } };
  return withFields(withFields(clean, answerFields), limitFields);
}

const withFields = (answer: Answer, fields: readonly string[] | undefined): Answer =>
  fields ? { ...answer, head: { ...answer.head, fields: [...answer.head.fields, ...fields] } } : answer;

/** An application's response must not speak in the waypoint's name. */
function withoutOurs(fields: string[]): string[] {
  for (let i = 0; i < fields.length; i += 2) {
    if (isOurs(fields[i] ?? '')) return fields.filter((_, at) => !isOurs(fields[at - (at % 2)] ?? ''));
  }
  return fields;
}

// The first letter first: every field of every response is asked about.
const isOurs = (name: string): boolean => name.charCodeAt(0) === 0x78 && name.startsWith('x-warren-');
