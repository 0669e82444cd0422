/** A row of a component's metrics table: what a family is called, which labels it has in which order, and what it says. */

export interface MetricFamily {
  /** As it is exposed: counters end in `_total`. */
  readonly name: string;
  readonly type: 'counter' | 'gauge';
  /** Label names in the order in which they are written. */
  readonly labels: readonly string[];
  /** One sentence for people. */
  readonly help: string;
  /** Unstable families may change between versions; their help text says so (a convention of Istio's ztunnel). */
  readonly stable: boolean;
  /** Leave a series out while its value is zero. */
  readonly hideZero?: boolean;
}

export interface Sample {
  /** Pairs in the family's order. */
  readonly labels: readonly (readonly [name: string, value: string])[];
  readonly value: number;
}

/** The sentence of a family as HELP shows it. */
export const helpText = ({ help, stable }: MetricFamily): string => (stable ? help : `${help} (unstable)`);
