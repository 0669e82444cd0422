/** Routes that ask who calls: the namespace that the caller's certificate proves, and labels of its workload. */
import type { SourceMatch } from '../codec/gen/waypoint.ts';

export interface SourceTest {
  /** Empty for any. */
  readonly namespace: string;
  readonly labels: readonly (readonly [name: string, value: string])[];
}

/** A caller as routes see it; labels are looked up when a rule asks for them. */
export interface RouteSource {
  /** Proved by the certificate; empty for plaintext. */
  readonly namespace: string;
  label(name: string): string | undefined;
}

export const NO_SOURCE: RouteSource = { namespace: '', label: () => undefined };

export const compileSource = ({ namespace, labels }: SourceMatch): SourceTest => ({ namespace, labels: Object.entries(labels) });

export const sourceHolds = ({ namespace, labels }: SourceTest, source: RouteSource): boolean =>
  (namespace === '' || namespace === source.namespace) && labels.every(([name, value]) => source.label(name) === value);
