/** Events as `kubectl describe` shows them: one object for what repeats, with a count. */
import { createHash } from 'node:crypto';
import type { Clock } from '../../common/base/clock.ts';
import type { AnyObject } from '../objects.ts';
import type { Collection, EventInput } from './collections.ts';

export interface ClusterEvent extends AnyObject {
  involvedObject: Record<string, string>;
  reason: string;
  message: string;
  type: string;
  source: { component: string; host?: string };
  firstTimestamp: string;
  lastTimestamp: string;
  count: number;
  reportingComponent: string;
  reportingInstance: string;
  eventTime: null;
}

const MOST_EVENTS = 1000;

export function eventRecorder(events: Collection<ClusterEvent>, clock: Clock): (event: EventInput) => void {
  const names: { namespace: string; name: string }[] = [];
  return (input) => {
    void write(events, names, input, new Date(clock.now()).toISOString().replace(/\.\d+Z$/, 'Z')).catch(() => {
      // The object's namespace is going away: nobody can look there any more.
    });
  };
}

async function write(
  events: Collection<ClusterEvent>,
  names: { namespace: string; name: string }[],
  input: EventInput,
  nowText: string,
): Promise<void> {
  const { about, type, reason, message, source, node } = input;
  const { apiVersion, kind, metadata } = about;
  const namespace = metadata.namespace ?? 'default';
  const key = createHash('sha256').update([kind, metadata.uid, type, reason, message, source].join('\0')).digest('hex').slice(0, 16);
  const name = `${metadata.name}.${key}`;
  const counted = await events.modify(namespace, name, (draft) => {
    draft.count++;
    draft.lastTimestamp = nowText;
    return true;
  });
  if (counted) return;
  await events.create({
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name, namespace },
    involvedObject: {
      apiVersion,
      kind,
      name: metadata.name,
      uid: metadata.uid ?? '',
      ...(metadata.namespace === undefined ? {} : { namespace: metadata.namespace }),
      ...(metadata.resourceVersion === undefined ? {} : { resourceVersion: metadata.resourceVersion }),
    },
    reason,
    message,
    type,
    source: { component: source, ...(node === undefined ? {} : { host: node }) },
    firstTimestamp: nowText,
    lastTimestamp: nowText,
    count: 1,
    reportingComponent: source,
    reportingInstance: node ?? '',
    eventTime: null,
  });
  names.push({ namespace, name });
  const oldest = names.length > MOST_EVENTS ? names.shift() : undefined;
  if (oldest) await events.delete(oldest.namespace, oldest.name);
}
