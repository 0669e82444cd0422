/** Where nobody says a namespace, kubectl's habit: the one of the kubeconfig's context, else `default`. */
import type { Connection } from './terminal.ts';

/** Options of a command, before it is known which namespace is meant. */
export type Placed<Options extends { readonly namespace: string }> = Omit<Options, 'namespace'> & { readonly namespace?: string };

/** @param given by a flag @returns `default` too where there is no configuration that could be read: connecting says what is wrong with it */
export async function namespaceOf({ kubeconfig, context, env }: Connection, given?: string): Promise<string> {
  if (given !== undefined) return given;
  const { loadKubeCredentials } = await import('../common/client/kube-config.ts');
  try {
    return loadKubeCredentials({ ...(kubeconfig && { kubeconfig }), ...(context && { context }), env }).namespace ?? 'default';
  } catch {
    return 'default';
  }
}

/** Where to connect, and the namespace that is meant: what the `--namespace` of a command stands for. */
export async function placed<At extends Connection>(
  connection: At,
  { namespace }: { readonly namespace?: string },
): Promise<At & { readonly namespace: string }> {
  return { ...connection, namespace: await namespaceOf(connection, namespace) };
}
