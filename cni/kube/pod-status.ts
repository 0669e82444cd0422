/** What the node agent writes to Kubernetes: the annotation that says what is so, and events that say why not. */
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { type KubeApi, KubeApiError } from '../../common/client/kube-api.ts';
import type { Pod } from '../enrol/decision.ts';
import type { AnnotationChanges, EventType } from '../enrol/pod-voice.ts';

const MAX_MESSAGE = 1024;

/**
 * Through pods/status, which needs no right to change pods. The UID makes it fail for another pod of the same name.
 * @throws {KubeApiError} except where the pod is gone
 */
export async function annotatePod(api: Pick<KubeApi, 'patch'>, { metadata }: Pod, annotations: AnnotationChanges): Promise<void> {
  const { name = '', namespace = '', uid } = metadata;
  const body = { metadata: { ...(uid !== undefined && { uid }), annotations } };
  try {
    await api.patch(`/api/v1/namespaces/${namespace}/pods/${name}/status`, body, { type: 'merge' });
  } catch (error) {
    // Gone, or replaced by another pod of the same name: nobody is left to be annotated.
    if (error instanceof KubeApiError && (error.status === 404 || (error.status === 409 && /uid/i.test(error.message)))) return;
    throw error;
  }
}

export interface EventParts {
  readonly api: Pick<KubeApi, 'create'>;
  readonly log: Log;
  readonly nodeName: string;
  now(): number;
}

/** An event on the pod; that it cannot be written is logged and no more. */
export function writePodEvent({ api, log, nodeName, now }: EventParts, { metadata }: Pod, type: EventType, message: string): void {
  const { name = '', namespace = '', uid, resourceVersion } = metadata;
  const time = new Date(now()).toISOString().replace(/\.\d+Z$/, 'Z');
  const event = {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { generateName: `${name}.`.slice(0, 200), namespace },
    involvedObject: { apiVersion: 'v1', kind: 'Pod', name, namespace, uid, resourceVersion },
    reason: 'AmbientEnrolment',
    message: message.slice(0, MAX_MESSAGE),
    type,
    source: { component: 'istio-cni', host: nodeName },
    firstTimestamp: time,
    lastTimestamp: time,
    count: 1,
  };
  api.create(`/api/v1/namespaces/${namespace}/events`, event).catch((error: unknown) => {
    log.debug({ pod: name, namespace, error: errorMessage(error) }, 'an event could not be written');
  });
}
