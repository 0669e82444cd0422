/** Istio's certificate service, one call: a signing request in, leaf, intermediates and roots out (Istio's ztunnel, src/identity). */
import { Client, status as GrpcStatus, type ServiceError } from '@grpc/grpc-js';
import { errorMessage } from '../base/errors.ts';
import { type IstioCertificateRequest, type IstioCertificateResponse, IstioCertificateServiceService } from '../codec/gen/ca.ts';
import { callMetadata, channelCredentials, channelOptions, type GrpcEndpoint, readRoots, type TokenSource } from './grpc-endpoint.ts';

export interface CaClientOptions {
  readonly endpoint: GrpcEndpoint;
  readonly token: TokenSource;
  readonly clusterId: string;
}

export interface SigningRequest {
  /** PEM, PKCS#10. */
  readonly csr: string;
  readonly validitySeconds: number;
  /** `spiffe://…` of a pod on our node; undefined where we ask for our own identity. */
  readonly impersonate: string | undefined;
}

const CALL_TIMEOUT_MS = 15_000;

export class CaClient {
  readonly #options: CaClientOptions;
  #channel: { readonly client: Client; readonly roots: string } | undefined;

  constructor(options: CaClientOptions) {
    this.#options = options;
  }

  /** PEM blocks: leaf first, the bundle of roots last. @throws {Error} with the CA's status and words */
  async sign(request: SigningRequest): Promise<readonly string[]> {
    const { endpoint, token, clusterId } = this.#options;
    const { path, requestSerialize, responseDeserialize } = IstioCertificateServiceService.createCertificate;
    const message: IstioCertificateRequest = {
      csr: request.csr,
      validityDuration: BigInt(request.validitySeconds),
      metadata: request.impersonate === undefined ? undefined : { ImpersonatedIdentity: request.impersonate },
    };
    const client = this.#client();
    const metadata = callMetadata(endpoint, token, clusterId);
    return new Promise((resolve, reject) => {
      client.makeUnaryRequest<IstioCertificateRequest, IstioCertificateResponse>(
        path,
        requestSerialize,
        responseDeserialize,
        message,
        metadata,
        { deadline: Date.now() + CALL_TIMEOUT_MS },
        (error: ServiceError | null, response?: IstioCertificateResponse) => {
          if (error) reject(new Error(`${endpoint.target}: ${GrpcStatus[error.code] ?? error.code}: ${error.details}`, { cause: error }));
          else resolve(response?.certChain ?? []);
        },
      );
    });
  }

  close(): void {
    this.#channel?.client.close();
    this.#channel = undefined;
  }

  /** The channel is built anew when the roots on disk have changed; where they cannot be read for a moment, the old one serves on. */
  #client(): Client {
    const { endpoint } = this.#options;
    let roots: string;
    try {
      roots = endpoint.tls ? readRoots(endpoint.root).join('') : '';
    } catch (error) {
      if (this.#channel) return this.#channel.client;
      throw new Error(`cannot reach the CA: ${errorMessage(error)}`, { cause: error });
    }
    if (this.#channel?.roots === roots) return this.#channel.client;
    const client = new Client(endpoint.target, channelCredentials(endpoint), channelOptions(endpoint));
    this.#channel?.client.close();
    this.#channel = { client, roots };
    return client;
  }
}
