/** What a rule makes of a request and of its response: redirect, header changes, rewrite, the choice of a backend. */
import { ProxyError } from '../../common/base/errors.ts';
import type { Backend as BackendRule, HeaderChange } from '../../common/codec/gen/waypoint.ts';
import type { CompiledEntry } from '../../common/decision/http-model.ts';
import { changeFields, changePath, chooseBackend, redirectAnswer } from '../../common/decision/http-route.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import type { RequestHead } from '../../common/http/types.ts';
import type { Answer, RequestContext, Stage } from './context.ts';
import { localAnswer } from './local-answer.ts';

export interface FilterParts {
  readonly view: Pick<MeshView, 'serviceByKey'>;
  readonly random: () => number;
  /** Sends copies of a request to where its rule wants them. */
  mirror(request: RequestContext, entry: CompiledEntry): void;
}

export function applyFilters(parts: FilterParts): Stage {
  return (next) => async (request) => {
    const { entry } = request;
    if (!entry) return next(request);
    const { rule } = entry;
    const redirect = redirectAnswer(entry, request.head, request.connection.target.port);
    if (redirect) {
      const answer = localAnswer(request, redirect.status, '', ['location', redirect.location]);
      return changedAnswer(answer, [rule.responseHeaders]);
    }
    const backend = chooseBackend(rule, parts.random);
    request.backend = backendOf(parts, rule.name, backend);
    request.head = changedHead(request.head, entry, backend);
    if (rule.mirrors.length > 0) parts.mirror(request, entry);
    return changedAnswer(await next(request), [backend?.responseHeaders, rule.responseHeaders]);
  };
}

/** @throws {ProxyError} BACKEND_INVALID */
function backendOf({ view }: FilterParts, rule: string, backend: BackendRule | undefined): RequestContext['backend'] {
  if (!backend) throw new ProxyError('BACKEND_INVALID', `${rule} has no backend with a weight`);
  const { to } = backend;
  if (!to) throw new ProxyError('BACKEND_INVALID', `${rule} chose a backend that is not valid`);
  const service = view.serviceByKey(to.namespace, to.hostname);
  if (!service) throw new ProxyError('BACKEND_INVALID', `${rule} chose ${to.namespace}/${to.hostname}, which is not known`);
  if (!service.ports.has(to.port)) throw new ProxyError('BACKEND_INVALID', `${to.namespace}/${to.hostname} has no port ${to.port}`);
  return { service, workload: undefined, port: to.port };
}

function changedHead(head: RequestHead, entry: CompiledEntry, backend: BackendRule | undefined): RequestHead {
  const { rule } = entry;
  const changed = {
    ...head,
    authority: rule.rewrite?.hostname || head.authority,
    path: rule.rewrite ? changePath(head.path, rule.rewrite.path, entry) : head.path,
  };
  for (const change of [rule.requestHeaders, backend?.requestHeaders]) {
    if (!change) continue;
    // Host is no field here: whoever sets it means the authority.
    const host = change.set.find(({ name }) => name.toLowerCase() === 'host')?.value;
    if (host !== undefined) changed.authority = host;
    changed.fields = changeFields(changed.fields, withoutHost(change));
  }
  return changed;
}

const withoutHost = ({ set, add, remove }: HeaderChange): HeaderChange => ({
  set: set.filter(({ name }) => name.toLowerCase() !== 'host'),
  add: add.filter(({ name }) => name.toLowerCase() !== 'host'),
  remove,
});

function changedAnswer(answer: Answer, changes: readonly (HeaderChange | undefined)[]): Answer {
  let { fields } = answer.head;
  for (const change of changes) if (change) fields = changeFields(fields, change);
  return fields === answer.head.fields ? answer : { ...answer, head: { ...answer.head, fields } };
}
