/** The outermost stage: whatever comes of a request, the client has an answer, and an operator a line and numbers. */

import { errorMessage, ProxyError } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { AttemptFailed } from './attempt.ts';
import type { Stage } from './context.ts';
import { errorAnswer } from './local-answer.ts';

/** Turns what went wrong into an answer; the line itself is written when the answer has been delivered (deliver.ts, telemetry). */
export function answerAlways({ log }: { readonly log: Pick<Log, 'error'> }): Stage {
  return (next) => async (request) => {
    try {
      const answer = await next(request);
      const { fields } = answer.head;
      const own = withoutOurs(fields);
      const clean = request.answerFields ? [...own, ...request.answerFields] : own;
      return clean === fields ? answer : { ...answer, head: { ...answer.head, fields: clean } };
    } catch (reason) {
      const error = request.cancelled ?? AttemptFailed.errorOf(reason);
      if (!(reason instanceof ProxyError) && !(reason instanceof AttemptFailed)) {
        log.error({ id: request.traceId, error: errorMessage(reason) }, 'request handler failed');
      }
      request.error = error;
      return errorAnswer(request, error);
    }
  };
}

/** An application's response must not speak in the waypoint's name. */
function withoutOurs(fields: string[]): string[] {
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i]?.startsWith('x-warren-')) return fields.filter((_, at) => !fields[at - (at % 2)]?.startsWith('x-warren-'));
  }
  return fields;
}
