/**
 * `istio.v1.auth.IstioCertificateService/CreateCertificate`. A caller gets a certificate for its own identity, or, as a trusted node
 * account, for an identity that runs on its node. Every certificate and every refusal is one log line.
 * @see Istio: security/pkg/server/ca/server.go
 */
import { type handleUnaryCall, type ServiceDefinition, type ServiceError, status as statusCodes } from '@grpc/grpc-js';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import { IstioCertificateRequest, type IstioCertificateResponse, IstioCertificateServiceService } from '../../common/codec/gen/ca.ts';
import { CsrError, parseCsr } from '../../common/codec/x509/csr.ts';
import { readCertificate } from '../../common/codec/x509/read-certificate.ts';
import type { Metrics } from '../metrics.ts';
import { authenticate } from './authenticate.ts';
import type { Authority } from './authority.ts';
import type { NodeAuthorizer } from './node-authorizer.ts';
import type { Caller, TokenReviewer } from './token-review.ts';

export interface CertificateServiceOptions {
  readonly reviewer: Pick<TokenReviewer, 'review'>;
  readonly authorizer: Pick<NodeAuthorizer, 'authorize'>;
  authority(): Authority;
  /** The pods are known; before that nobody can be authorised. */
  ready(): boolean;
  readonly trustDomain: string;
  readonly defaultLifetimeMs: number;
  readonly maxLifetimeMs: number;
  readonly metrics: Metrics;
  readonly log: Log;
}

type Code = 'UNAUTHENTICATED' | 'INVALID_ARGUMENT' | 'UNAVAILABLE' | 'RESOURCE_EXHAUSTED' | 'INTERNAL';

export const certificateDefinition = {
  createCertificate: {
    ...IstioCertificateServiceService.createCertificate,
    requestDeserialize: (bytes: Buffer): IstioCertificateRequest | undefined => {
      try {
        return IstioCertificateRequest.decode(bytes);
      } catch {
        // Reported by the handler, with the caller's address.
        return undefined;
      }
    },
  },
} satisfies ServiceDefinition;

/** A refusal: what the caller is told, and for the log what it is not told. */
class Refusal extends Error {
  readonly code: Code;
  readonly detail: string;

  constructor(code: Code, message: string, detail = message) {
    super(message);
    this.code = code;
    this.detail = detail;
  }
}

export function createCertificateHandler(
  options: CertificateServiceOptions,
): handleUnaryCall<IstioCertificateRequest | undefined, IstioCertificateResponse> {
  const { log, metrics } = options;
  return (call, callback) => {
    metrics.csrs.inc();
    const peer = call.getPeer();
    const context: Record<string, unknown> = { peer };
    answer(options, call.metadata, call.request, context).then(
      (certChain) => callback(null, { certChain }),
      (error: unknown) => {
        const refusal =
          error instanceof Refusal ? error : new Refusal('INTERNAL', 'the certificate could not be made', errorMessage(error));
        log.warn({ ...context, code: refusal.code, error: refusal.detail }, 'certificate refused');
        callback(serviceError(refusal));
      },
    );
  };
}

async function answer(
  options: CertificateServiceOptions,
  metadata: Parameters<typeof authenticate>[0],
  request: IstioCertificateRequest | undefined,
  context: Record<string, unknown>,
): Promise<string[]> {
  const { metrics, log, authority } = options;
  if (!options.ready()) throw new Refusal('UNAVAILABLE', 'istiod has not read the cluster yet');
  if (!request) throw new Refusal('INVALID_ARGUMENT', 'the request is no IstioCertificateRequest');
  const authentication = await authenticate(metadata, options.reviewer);
  if ('refuse' in authentication) {
    metrics.authenticationFailures.inc();
    throw new Refusal(authentication.refuse, authentication.message);
  }
  const { caller } = authentication;
  context.caller = `${caller.namespace}/${caller.serviceAccount}`;
  const identity = identityFor(options, caller, request);
  context.identity = identity;
  const lifetimeMs = lifetimeOf(options, request.validityDuration);
  const publicKeySpkiDer = readKey(options, request.csr);
  const { leaf, chain, notAfter } = sign(metrics, () => authority().sign({ publicKeySpkiDer, uris: [identity], lifetimeMs }));
  metrics.issued.inc();
  log.info({ ...context, serial: readCertificate(leaf).serial, expires: new Date(notAfter).toISOString() }, 'certificate issued');
  return [...chain];
}

function identityFor(
  { authorizer, trustDomain, metrics }: CertificateServiceOptions,
  caller: Caller,
  request: IstioCertificateRequest,
): string {
  const impersonated: unknown = request.metadata?.ImpersonatedIdentity;
  if (impersonated === undefined || impersonated === '') {
    const { namespace, serviceAccount } = caller;
    return formatSpiffeId({ trustDomain, namespace, serviceAccount });
  }
  const identity = typeof impersonated === 'string' ? impersonated.slice(0, 2048) : '';
  const verdict = authorizer.authorize(caller, identity);
  if (verdict.allowed) return identity;
  metrics.authenticationFailures.inc();
  // Details stay here: a stolen token should not be able to ask what runs where.
  throw new Refusal('UNAUTHENTICATED', 'request impersonation authentication failure', `${identity}: ${verdict.reason}`);
}

function lifetimeOf({ defaultLifetimeMs, maxLifetimeMs }: CertificateServiceOptions, seconds: bigint): number {
  if (seconds <= 0n) return defaultLifetimeMs;
  const wanted = Number(seconds) * 1000;
  if (wanted > maxLifetimeMs)
    throw new Refusal('INVALID_ARGUMENT', `a lifetime of ${seconds} s is more than the ${maxLifetimeMs / 1000} s that are allowed`);
  return wanted;
}

function readKey({ metrics }: CertificateServiceOptions, csr: string): Uint8Array {
  try {
    return parseCsr(csr).publicKeySpkiDer;
  } catch (error) {
    metrics.csrParsingErrors.inc();
    throw new Refusal('INVALID_ARGUMENT', error instanceof CsrError ? error.message : 'the CSR cannot be read', errorMessage(error));
  }
}

function sign<T>(metrics: Metrics, run: () => T): T {
  try {
    return run();
  } catch (error) {
    metrics.csrSignErrors.inc();
    throw error;
  }
}

function serviceError({ code, message }: Refusal): ServiceError {
  const error = new Error(message) as ServiceError;
  error.code = statusCodes[code];
  error.details = message;
  return error;
}
