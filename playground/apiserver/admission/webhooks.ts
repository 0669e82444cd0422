/**
 * Admission webhooks for what comes over HTTP: the mutating ones one after another, then the validating ones at once. In-process controllers
 * are not asked: their writes are synchronous. `matchConditions` are CEL and not evaluated; such a webhook is asked about everything else
 * that it selects.
 */
import { randomUUID } from 'node:crypto';
import { errorMessage } from '../../../common/base/errors.ts';
import type { Log } from '../../../common/base/log.ts';
import { ApiError } from '../api-error.ts';
import type { Exchange } from '../http/exchange.ts';
import { arrayOf, at, cloneDeep, isObject, type JsonObject, objectOf, stringOf } from '../json.ts';
import type { KubeObject } from '../object.ts';
import { applyJsonPatch } from '../patch/json-patch.ts';
import type { ResourceType } from '../registry.ts';
import type { Store } from '../store/store.ts';
import type { Draft } from '../store/writes.ts';
import { type ConnectService, callWebhook } from './call-webhook.ts';
import { type AdmissionRequest, webhookMatches } from './webhook-rules.ts';

export interface WebhooksOptions {
  readonly store: Store;
  readonly log: Log;
  readonly connectService: ConnectService;
}

const CONFIGURATION_GROUP = 'admissionregistration.k8s.io';
const MAX_TIMEOUT_S = 30;

export class Webhooks {
  readonly #store: Store;
  readonly #log: Log;
  readonly #connectService: ConnectService;

  constructor({ store, log, connectService }: WebhooksOptions) {
    this.#store = store;
    this.#log = log;
    this.#connectService = connectService;
  }

  /** May replace the draft's object. @throws {ApiError} where a webhook denies, or fails and must not */
  async admit(draft: Draft, exchange: Exchange): Promise<void> {
    const request = (): AdmissionRequest => ({
      operation: draft.verb,
      type: draft.type,
      version: draft.version.name,
      subresource: draft.options.subresource ?? '',
      object: draft.object,
      old: draft.old,
    });
    // Configurations do not judge themselves, or a broken one could not be mended.
    if (draft.type.group === CONFIGURATION_GROUP) return;
    for (const webhook of this.#matching('MutatingWebhookConfiguration', request())) {
      const answer = await this.#ask(webhook, request(), exchange, draft.options.dryRun ?? false);
      const patch = answer?.patch;
      if (typeof patch !== 'string' || patch === '') continue;
      const patched = applyJsonPatch(draft.object, JSON.parse(Buffer.from(patch, 'base64').toString()));
      this.#store.readmit(draft, patched as KubeObject);
    }
    await Promise.all(
      this.#matching('ValidatingWebhookConfiguration', request()).map((webhook) =>
        this.#ask(webhook, request(), exchange, draft.options.dryRun ?? false),
      ),
    );
  }

  async admitDelete(type: ResourceType, old: KubeObject, exchange: Exchange, dryRun: boolean): Promise<void> {
    if (type.group === CONFIGURATION_GROUP) return;
    const request: AdmissionRequest = { operation: 'DELETE', type, version: type.storageVersion, subresource: '', object: undefined, old };
    const webhooks = ['MutatingWebhookConfiguration', 'ValidatingWebhookConfiguration'].flatMap((kind) => this.#matching(kind, request));
    await Promise.all(webhooks.map((webhook) => this.#ask(webhook, request, exchange, dryRun)));
  }

  #matching(kind: string, request: AdmissionRequest): JsonObject[] {
    const { type } = request;
    const object = request.object ?? request.old;
    const namespace =
      type.kind === 'Namespace' && type.group === '' ? object : this.#store.get('Namespace', object?.metadata.namespace ?? '');
    const labels = namespace?.metadata.labels ?? (type.namespaced ? {} : undefined);
    const found: JsonObject[] = [];
    for (const configuration of this.#store.each(kind)) {
      for (const webhook of arrayOf(configuration.webhooks))
        if (isObject(webhook) && webhookMatches(webhook, request, labels)) found.push(webhook);
    }
    return found;
  }

  async #ask(webhook: JsonObject, request: AdmissionRequest, exchange: Exchange, dryRun: boolean): Promise<JsonObject | undefined> {
    const name = stringOf(webhook.name);
    const seconds = Math.min(Number(webhook.timeoutSeconds ?? 10), MAX_TIMEOUT_S);
    let answer: JsonObject;
    try {
      answer = await callWebhook(webhook.clientConfig, reviewOf(request, exchange, dryRun), seconds * 1000, this.#connectService);
    } catch (error) {
      const why = `failed calling webhook "${name}": ${errorMessage(error)}`;
      this.#log.warn({ webhook: name, error: errorMessage(error), failurePolicy: webhook.failurePolicy }, 'webhook call failed');
      if (webhook.failurePolicy === 'Ignore') return undefined;
      throw new ApiError(500, 'InternalError', `Internal error occurred: ${why}`);
    }
    for (const warning of arrayOf(answer.warnings)) exchange.warn(stringOf(warning));
    if (answer.allowed !== true) throw denial(name, objectOf(answer.status));
    return answer;
  }
}

function denial(webhook: string, status: JsonObject): ApiError {
  const { code, message, reason } = status;
  const why = stringOf(message) || stringOf(reason) || 'without explanation';
  const refused = typeof code === 'number' && code >= 400 ? code : 400;
  const text =
    why === 'without explanation'
      ? `admission webhook "${webhook}" denied the request without explanation`
      : `admission webhook "${webhook}" denied the request: ${why}`;
  return new ApiError(refused, stringOf(reason) || (refused === 403 ? 'Forbidden' : 'BadRequest'), text, {
    causes: arrayOf(at(status, 'details', 'causes')) as never[],
  });
}

function reviewOf({ operation, type, version, subresource, object, old }: AdmissionRequest, exchange: Exchange, dryRun: boolean): object {
  const subject = object ?? old;
  const kind = { group: type.group, version, kind: type.kind };
  const resource = { group: type.group, version, resource: type.plural };
  return {
    kind: 'AdmissionReview',
    apiVersion: 'admission.k8s.io/v1',
    request: {
      uid: randomUUID(),
      kind,
      resource,
      ...(subresource ? { subResource: subresource, requestSubResource: subresource } : {}),
      requestKind: kind,
      requestResource: resource,
      name: subject?.metadata.name,
      ...(subject?.metadata.namespace ? { namespace: subject.metadata.namespace } : {}),
      operation,
      userInfo: exchange.user,
      object: object ? cloneDeep(object) : null,
      oldObject: old ?? null,
      dryRun,
      options: null,
    },
  };
}
