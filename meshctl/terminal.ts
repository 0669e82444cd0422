/** What commands print with: tables that fit a terminal, colour only where somebody looks, and the error that ends a command in one line. */
import { KubeApi, KubeApiError } from '../common/client/kube-api.ts';

/** Ends a command: one line that says what is wrong and how to mend it. */
export class CommandError extends Error {}

export interface Connection {
  readonly kubeconfig?: string;
  readonly context?: string;
  readonly systemNamespace: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** @throws {CommandError} where there is no usable configuration */
export function connect({ kubeconfig, context, env }: Connection): KubeApi {
  try {
    return KubeApi.load({ ...(kubeconfig && { kubeconfig }), ...(context && { context }), env });
  } catch (error) {
    throw new CommandError(`${error instanceof Error ? error.message : error} (give --kubeconfig FILE)`);
  }
}

/** What went wrong with the cluster, as one line. */
export function clusterError(error: unknown): CommandError {
  if (error instanceof KubeApiError) return new CommandError(`the API server answered ${error.status} ${error.reason}: ${error.message}`);
  return new CommandError(`the API server could not be asked: ${error instanceof Error ? error.message : error}`);
}

/** Columns padded to their widest cell, kubectl's way. */
export function table(head: readonly string[], rows: readonly (readonly string[])[], gap = '   '): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join(gap)
      .trimEnd();
  return [head, ...rows].map(line).join('\n');
}

/** `1 pod`, `2 pods`. */
export const plural = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? '' : 's'}`;
