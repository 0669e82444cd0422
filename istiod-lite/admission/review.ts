/**
 * AdmissionReview in, AdmissionReview out (Kubernetes, admission.k8s.io/v1): the object judged as analysis judges it. Deletions are never
 * asked about, and what is being deleted is let through: whoever takes a finalizer away must not be held up by what the object says.
 */
import { type AdmissionView, type AdmitOptions, admit } from '../analysis/admit.ts';
import { friendlyName, type Message } from '../analysis/messages.ts';
import { at, isRecord, text } from '../model/objects.ts';

export interface ReviewOutcome {
  readonly answer: object;
  readonly outcome: 'allowed' | 'warned' | 'refused';
  /** For the log: `AuthorizationPolicy shop/web`. */
  readonly object: string;
  readonly messages: readonly string[];
}

// kubectl prints each on a line of its own; the API server cuts at 256 characters and at 4096 altogether.
const LONGEST = 250;
const MOST = 12;

/** @returns undefined for what is no AdmissionReview with a request */
export function review(body: unknown, view: AdmissionView, options: AdmitOptions): ReviewOutcome | undefined {
  const request = at(body, 'request');
  const uid = text(at(request, 'uid'));
  if (!isRecord(request) || uid === '') return undefined;
  const object = typed(request, request.object);
  const verdict =
    isRecord(object) && at(object, 'metadata', 'deletionTimestamp') === undefined
      ? admit(object, typed(request, request.oldObject), view, options)
      : { refused: [], warnings: [] };
  const { refused, warnings } = verdict;
  const answer = {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: {
      uid,
      allowed: refused.length === 0,
      ...(refused.length > 0
        ? { status: { code: 400, reason: 'BadRequest', message: refused.slice(0, MOST).map(sentence).join('; ') } }
        : {}),
      ...(warnings.length > 0 ? { warnings: warnings.slice(0, MOST).map((each) => shortened(sentence(each))) } : {}),
    },
  };
  const first = refused[0] ?? warnings[0];
  return {
    answer,
    outcome: refused.length > 0 ? 'refused' : warnings.length > 0 ? 'warned' : 'allowed',
    object: first ? friendlyName(first.origin) : `${text(at(request, 'kind', 'kind'))} ${text(request.namespace)}/${text(request.name)}`,
    messages: [...refused, ...warnings].map(sentence),
  };
}

const sentence = ({ type, origin, text: words }: Message): string => `[${type.code}] ${friendlyName(origin)}: ${words}`;

const shortened = (words: string): string => (words.length > LONGEST ? `${words.slice(0, LONGEST - 3)}...` : words);

/** With kind and version, which objects inside a review have in any case, and the namespace of the request. */
function typed(request: Record<string, unknown>, object: unknown): unknown {
  if (!isRecord(object)) return undefined;
  const { group, version, kind } = isRecord(request.kind) ? request.kind : {};
  const namespace = text(request.namespace);
  const metadata = isRecord(object.metadata) ? object.metadata : {};
  const clustered = text(kind) === 'Namespace';
  return {
    apiVersion: text(group) === '' ? text(version) : `${text(group)}/${text(version)}`,
    kind: text(kind),
    ...object,
    metadata: { ...metadata, ...(namespace !== '' && !clustered && metadata.namespace === undefined ? { namespace } : {}) },
  };
}
