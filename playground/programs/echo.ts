/**
 * The echo server and client that tests and demos run in pods, after the protocol of Istio's test application: `echo [--port=8080 …]`
 * serves, `echo client URL …` asks. Only what is used is loaded, so that a pod is ready within a tenth of a second.
 */
import { parseServerOptions } from './echo-options.ts';

async function main(argv: readonly string[]): Promise<number> {
  try {
    if (argv[0] === 'client') {
      const { runClient } = await import('./echo-client.ts');
      return await runClient(argv.slice(1), process.stdout, process.stderr);
    }
    // Before anything waits: as process 1 of a container, a signal that nobody listens to is lost.
    const asked = new Promise<void>((resolve) => {
      for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
    });
    const { startServer } = await import('./echo-server.ts');
    const server = await startServer(
      parseServerOptions(argv[0] === 'server' ? argv.slice(1) : argv),
      process.env.POD_NAME ?? process.env.HOSTNAME ?? '',
    );
    await asked;
    await server.stop();
    return 0;
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  }
}

process.exitCode = await main(process.argv.slice(2));
// Connections that a peer keeps open must not keep a program alive that was told to go.
process.exit();
