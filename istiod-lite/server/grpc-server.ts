/** The TLS port that proxies use: xDS and certificates on one gRPC server. Connections age, dead ones are noticed, the end is orderly. */
import { experimental, Server, type ServiceDefinition, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { minutes, seconds } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { ServerCertificate } from '../ca/serving-certificate.ts';
import { anyAddress } from './listen-address.ts';

export interface GrpcServerOptions {
  readonly port: number;
  readonly certificate: Pick<ServerCertificate, 'provider'>;
  readonly services: readonly { readonly definition: ServiceDefinition; readonly implementation: UntypedServiceImplementation }[];
  readonly maxConnectionAgeMs: number;
}

export interface GrpcServer {
  /** The port that it got: of interest where 0 was asked for. */
  readonly port: number;
  /** Takes nothing new, waits for what is open, but no longer than for `patience`, then cuts it. */
  close(patience: Promise<void>): Promise<void>;
}

const MAX_REQUEST_BYTES = 4 * 2 ** 20;

/** On all addresses. @throws Error where the port is taken */
export async function serveGrpc({ port, certificate, services, maxConnectionAgeMs }: GrpcServerOptions): Promise<GrpcServer> {
  const server = new Server({
    'grpc.max_receive_message_length': MAX_REQUEST_BYTES,
    'grpc.max_send_message_length': -1,
    'grpc.max_concurrent_streams': 1000,
    'grpc.keepalive_time_ms': seconds(30),
    'grpc.keepalive_timeout_ms': seconds(10),
    // Streams end by themselves at this age, in their own words; this is for connections that carry only certificates.
    'grpc.max_connection_age_ms': maxConnectionAgeMs + minutes(5),
    'grpc.max_connection_age_grace_ms': minutes(1),
  });
  for (const { definition, implementation } of services) server.addService(definition, implementation);
  // Client certificates are asked for, verified where there is one, and not needed: most proxies show a token.
  const credentials = experimental.createCertificateProviderServerCredentials(certificate.provider, certificate.provider, false);
  const bound = await new Promise<number>((resolve, reject) => {
    const host = anyAddress();
    server.bindAsync(`${host === '::' ? '[::]' : host}:${port}`, credentials, (error, got) =>
      error ? reject(new Error(`cannot listen on port ${port}: ${errorMessage(error)}`, { cause: error })) : resolve(got),
    );
  });
  return {
    port: bound,
    async close(patience) {
      const ended = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
      await Promise.race([ended, patience]);
      server.forceShutdown();
    },
  };
}
