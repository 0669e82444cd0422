/** Events are forgotten after an hour, as on real Kubernetes, and earlier where there are too many of them. */
import { hours, minutes } from '../../../common/base/clock.ts';
import type { KubeObject } from '../object.ts';
import type { ResourceType } from '../registry.ts';
import type { Store } from '../store/store.ts';

const KEPT_MS = hours(1);
const SWEEP_MS = minutes(5);
const MAX_EVENTS = 5000;

/** @returns stops the sweeping */
export function expireEvents(store: Store, maxEvents = MAX_EVENTS): () => void {
  const kept: { type: ResourceType; object: KubeObject; sinceMs: number }[] = [];

  const forget = (type: ResourceType, { metadata }: KubeObject): void => {
    const current = store.collection(type).get(metadata.namespace ?? '', metadata.name);
    if (current && current.metadata.uid === metadata.uid) store.erase(type, current);
  };

  store.observe((type, { type: kind, object }) => {
    if (type.kind !== 'Event' || kind !== 'ADDED') return;
    kept.push({ type, object, sinceMs: store.clock.now() });
    if (kept.length <= maxEvents) return;
    // Not within the write of another event.
    const oldest = kept.shift();
    if (oldest) queueMicrotask(() => forget(oldest.type, oldest.object));
  });

  const sweep = (): void => {
    const since = store.clock.now() - KEPT_MS;
    while (kept[0] && kept[0].sinceMs <= since) {
      const oldest = kept.shift();
      if (oldest) forget(oldest.type, oldest.object);
    }
    timer = store.clock.after(SWEEP_MS, sweep);
  };
  let timer = store.clock.after(SWEEP_MS, sweep);
  return () => timer.cancel();
}
