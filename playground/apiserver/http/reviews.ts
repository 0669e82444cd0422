/** Kinds that are answered and not kept: token requests and reviews, and access reviews, which here allow everybody who has a name. */
import { ApiError } from '../api-error.ts';
import type { Tokens, UserInfo } from '../identity/tokens.ts';
import { arrayOf, at, isObject, type JsonObject, objectOf, stringOf } from '../json.ts';
import { timestamp } from '../object.ts';
import type { Store } from '../store/store.ts';
import type { Exchange } from './exchange.ts';
import type { ResourcePath } from './path.ts';

export interface ReviewParts {
  readonly store: Store;
  readonly tokens: Tokens;
}

/** @returns whether the path was one of these */
export async function serveReview(exchange: Exchange, path: ResourcePath, { store, tokens }: ReviewParts): Promise<boolean> {
  if (path.group === '' && path.plural === 'serviceaccounts' && path.subresource === 'token') {
    if (exchange.method !== 'POST') throw ApiError.methodNotAllowed();
    exchange.json(201, requestToken(await exchange.bodyObject(), path, store, tokens));
    return true;
  }
  const type = store.registry.byPlural(path.group, path.plural);
  if (!type?.virtual) return false;
  if (exchange.method !== 'POST' || path.name !== '') throw ApiError.methodNotAllowed();
  const body = await exchange.bodyObject();
  exchange.json(201, {
    ...body,
    apiVersion: `${path.group}/${path.version}`,
    kind: type.kind,
    status: reviewed(type.kind, body, exchange.user, tokens),
  });
  return true;
}

function reviewed(kind: string, body: JsonObject, user: UserInfo, tokens: Tokens): object {
  switch (kind) {
    case 'TokenReview': {
      const audiences = arrayOf(at(body, 'spec', 'audiences')).map(stringOf);
      const token = stringOf(at(body, 'spec', 'token'));
      if (token === '') throw ApiError.badRequest('spec.token: Required value');
      const verdict = tokens.review(token, audiences);
      if ('error' in verdict) return { authenticated: false, user: {}, error: verdict.error };
      return { authenticated: true, user: verdict.user, audiences: verdict.audiences };
    }
    case 'SelfSubjectReview':
      return { userInfo: user };
    case 'SelfSubjectRulesReview':
      return {
        incomplete: false,
        resourceRules: [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }],
        nonResourceRules: [{ verbs: ['*'], nonResourceURLs: ['*'] }],
      };
    default: {
      const known =
        kind === 'SelfSubjectAccessReview' || stringOf(at(body, 'spec', 'user')) !== '' || arrayOf(at(body, 'spec', 'groups')).length > 0;
      if (!known) throw ApiError.badRequest('spec.user: Invalid value: "": at least one of user or groups must be specified');
      const anonymous = at(body, 'spec', 'user') === 'system:anonymous';
      return anonymous ? { allowed: false, reason: 'anonymous' } : { allowed: true, reason: 'the playground has no RBAC' };
    }
  }
}

function requestToken(body: JsonObject, { namespace, name }: ResourcePath, store: Store, tokens: Tokens): object {
  const spec = objectOf(body.spec);
  const seconds = spec.expirationSeconds;
  if (seconds !== undefined && seconds !== null && !(Number.isInteger(seconds) && Number(seconds) >= 600)) {
    throw ApiError.invalid({ group: 'authentication.k8s.io', plural: 'tokenrequests', kind: 'TokenRequest' }, '', [
      {
        field: 'spec.expirationSeconds',
        reason: 'FieldValueInvalid',
        message: `Invalid value: ${JSON.stringify(seconds)}: may not specify a duration less than 10 minutes`,
      },
    ]);
  }
  const reference = spec.boundObjectRef;
  const audiences = arrayOf(spec.audiences).map(stringOf);
  const issued = tokens.issue({
    namespace,
    serviceAccount: name,
    audiences,
    ...(typeof seconds === 'number' ? { expirationSeconds: seconds } : {}),
    ...(isObject(reference) ? { boundPod: boundPod(reference, namespace, store) } : {}),
  });
  if (!issued) throw ApiError.notFound(store.typeOf('ServiceAccount'), name);
  return {
    kind: 'TokenRequest',
    apiVersion: 'authentication.k8s.io/v1',
    metadata: { name, namespace, creationTimestamp: timestamp(store.clock.now()) },
    spec: {
      audiences: audiences.length > 0 ? audiences : [tokens.issuer],
      expirationSeconds: seconds ?? 3600,
      boundObjectRef: reference ?? null,
    },
    status: { token: issued.token, expirationTimestamp: timestamp(issued.expirationTimestamp) },
  };
}

function boundPod(reference: JsonObject, namespace: string, store: Store): { name: string; uid: string; nodeName?: string } {
  if (reference.kind !== 'Pod')
    throw ApiError.badRequest(`cannot bind token for "${stringOf(reference.kind)}": the playground binds to Pods`);
  const name = stringOf(reference.name);
  const pod = store.require(store.typeOf('Pod'), namespace, name);
  const { uid = '' } = pod.metadata;
  const asked = stringOf(reference.uid);
  if (asked !== '' && asked !== uid)
    throw ApiError.conflict(store.typeOf('Pod'), name, `the UID in the bound object reference (${asked}) does not match the UID in record`);
  const nodeName = stringOf(at(pod, 'spec', 'nodeName'));
  return { name, uid, ...(nodeName ? { nodeName } : {}) };
}
