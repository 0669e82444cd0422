/** What a rule makes of a request and of its response: CORS, faults, redirect, direct answer, header changes, rewrite, the choice of a backend. */
import { type Clock, sleep } from '../../common/base/clock.ts';
import { ProxyError } from '../../common/base/errors.ts';
import type { Backend as BackendRule, Fault, HeaderChange } from '../../common/codec/gen/waypoint.ts';
import type { CompiledEntry } from '../../common/decision/http-model.ts';
import {
  changeFields,
  changePath,
  chooseBackend,
  fieldValue,
  type RedirectAnswer,
  redirectAnswer,
} from '../../common/decision/http-route.ts';
import { type CorsPlan, decideCors, isChosen } from '../../common/decision/http-rule.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import type { RequestHead } from '../../common/http/types.ts';
import type { Answer, Handler, RequestContext, Stage } from './context.ts';
import { follow } from './later.ts';
import { localAnswer } from './local-answer.ts';
import { bufferSource } from './request-body.ts';

export interface FilterParts {
  readonly view: Pick<MeshView, 'serviceByKey'>;
  readonly random: () => number;
  readonly clock: Clock;
  /** Sends copies of a request to where its rule wants them. */
  mirror(request: RequestContext, entry: CompiledEntry): void;
}

export function applyFilters(parts: FilterParts): Stage {
  return (next) => (request) => {
    const { entry } = request;
    if (!entry) return next(request);
    const { plan } = entry;
    if (!plan.cors && !plan.fault) return ownAnswerOf(request, entry) ?? passOn(parts, entry, request, next);
    return special(parts, entry, request, next);
  };
}

const ownAnswerOf = (request: RequestContext, entry: CompiledEntry): Promise<Answer> | undefined => {
  const own = ownAnswer(request, entry);
  return own && Promise.resolve(own);
};

/** A rule that speaks of origins or faults. */
async function special(parts: FilterParts, entry: CompiledEntry, request: RequestContext, next: Handler): Promise<Answer> {
  const { plan } = entry;
  const cors = plan.cors === undefined ? undefined : applyCors(plan.cors, request);
  if (cors && 'head' in cors) return cors;
  if (plan.fault) {
    const answer = await disturb(parts, plan.fault, request);
    if (answer) return answer;
  }
  const own = ownAnswer(request, entry);
  const answer = own ?? (await passOn(parts, entry, request, next));
  return cors ? changedAnswer(answer, [{ set: cors.fields, add: [], remove: [] }]) : answer;
}

function passOn(parts: FilterParts, entry: CompiledEntry, request: RequestContext, next: Handler): PromiseLike<Answer> {
  const { rule } = entry;
  const backend = chooseBackend(rule, parts.random);
  if (backend?.redirect) {
    const redirected = redirectAnswer(entry, request.head, request.connection.target.port, backend.redirect);
    if (redirected) return Promise.resolve(redirection(request, redirected, [backend.responseHeaders, rule.responseHeaders]));
  }
  request.backend = backendOf(parts, rule.name, backend);
  if (changesHead(entry, backend)) request.head = changedHead(request.head, entry, backend);
  if (rule.mirrors.length > 0) parts.mirror(request, entry);
  const answer = next(request);
  const changes = [backend?.responseHeaders, rule.responseHeaders];
  return changes.some((change) => change !== undefined) ? follow(answer, (whole) => changedAnswer(whole, changes), undefined) : answer;
}

/** What the rule answers itself. */
function ownAnswer(request: RequestContext, entry: CompiledEntry): Answer | undefined {
  const { rule } = entry;
  const redirect = redirectAnswer(entry, request.head, request.connection.target.port);
  if (redirect) return redirection(request, redirect, [rule.responseHeaders]);
  if (!rule.directAnswer) return undefined;
  const { status, body } = rule.directAnswer;
  const bytes = Buffer.from(body);
  const isHead = request.received.method === 'HEAD';
  const fields = bytes.length > 0 ? ['content-type', 'text/plain'] : [];
  const head = { status, fields, bodyBytes: bytes.length };
  return changedAnswer({ head, body: isHead || bytes.length === 0 ? undefined : bufferSource(bytes) }, [rule.responseHeaders]);
}

const redirection = (
  request: RequestContext,
  { status, location }: RedirectAnswer,
  changes: readonly (HeaderChange | undefined)[],
): Answer => changedAnswer(localAnswer(request, status, '', ['location', location]), changes);

/** @returns the answer to a preflight, or fields that the response gets */
function applyCors(cors: CorsPlan, request: RequestContext): Answer | { readonly fields: HeaderChange['set'] } | undefined {
  const verdict = decideCors(cors, request.received.method, (name) => fieldValue(request.head.fields, name));
  if (verdict === 'none') return undefined;
  if ('preflight' in verdict) return { head: { status: 200, fields: [...verdict.preflight], bodyBytes: 0 }, body: undefined };
  const { fields } = verdict;
  const pairs = fields.flatMap((name, i) => (i % 2 === 0 ? [{ name, value: fields[i + 1] ?? '' }] : []));
  return { fields: pairs };
}

/** @returns an answer where the request goes no further */
async function disturb({ clock, random }: FilterParts, fault: Fault, request: RequestContext): Promise<Answer | undefined> {
  if (isChosen(fault.delayPerMillion, random)) await sleep(clock, fault.delayMs, request.signal);
  if (!isChosen(fault.abortPerMillion, random)) return undefined;
  request.error = new ProxyError('FAULT_INJECTED', `${request.entry?.rule.name} answers with an error on purpose`);
  if (fault.abortGrpcStatus === undefined) return localAnswer(request, fault.abortStatus, 'fault filter abort', []);
  const fields = ['content-type', 'application/grpc', 'grpc-status', String(fault.abortGrpcStatus), 'grpc-message', 'fault filter abort'];
  return { head: { status: 200, fields, bodyBytes: 0 }, body: undefined };
}

/** @throws {ProxyError} BACKEND_INVALID */
function backendOf({ view }: FilterParts, rule: string, backend: BackendRule | undefined): RequestContext['backend'] {
  if (!backend) throw new ProxyError('BACKEND_INVALID', `${rule} has no backend with a weight`);
  const { to } = backend;
  if (!to) throw new ProxyError('BACKEND_INVALID', `${rule} chose a backend that is not valid`);
  const service = view.serviceByKey(to.namespace, to.hostname);
  if (!service) throw new ProxyError('BACKEND_INVALID', `${rule} chose ${to.namespace}/${to.hostname}, which is not known`);
  if (!service.ports.has(to.port)) throw new ProxyError('BACKEND_INVALID', `${to.namespace}/${to.hostname} has no port ${to.port}`);
  return { service, workload: undefined, port: to.port, subset: to.subset };
}

const changesHead = ({ rule }: CompiledEntry, backend: BackendRule | undefined): boolean =>
  (backend?.rewrite ?? rule.rewrite) !== undefined || rule.requestHeaders !== undefined || backend?.requestHeaders !== undefined;

function changedHead(head: RequestHead, entry: CompiledEntry, backend: BackendRule | undefined): RequestHead {
  const { rule } = entry;
  const path = backend?.rewrite?.path ?? rule.rewrite?.path;
  const changed = {
    ...head,
    authority: backend?.rewrite?.hostname || rule.rewrite?.hostname || head.authority,
    path: path ? changePath(head.path, path, entry) : head.path,
  };
  for (const change of [rule.requestHeaders, backend?.requestHeaders]) {
    if (!change) continue;
    // Host is no field here: whoever sets it means the authority.
    const host = change.set.find(isHost)?.value;
    if (host !== undefined) changed.authority = host;
    changed.fields = changeFields(changed.fields, withoutHost(change));
  }
  return changed;
}

const isHost = ({ name }: { readonly name: string }): boolean => name.toLowerCase() === 'host' || name === ':authority';

const withoutHost = ({ set, add, remove }: HeaderChange): HeaderChange => ({
  set: set.filter((header) => !isHost(header)),
  add: add.filter((header) => !isHost(header)),
  remove,
});

function changedAnswer(answer: Answer, changes: readonly (HeaderChange | undefined)[]): Answer {
  let { fields } = answer.head;
  for (const change of changes) if (change) fields = changeFields(fields, change);
  return fields === answer.head.fields ? answer : { ...answer, head: { ...answer.head, fields } };
}
