/**
 * `istio.v1.auth.IstioCertificateService/CreateCertificate`. A caller gets a certificate for its own identity, or, as a trusted node
 * account, for an identity that runs on its node. Every certificate and every refusal is one log line.
 * @see Istio: security/pkg/server/ca/server.go
 */
import { type handleUnaryCall, type ServiceDefinition, type ServiceError, status as statusCodes } from '@grpc/grpc-js';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { formatSpiffeId, parseSpiffeId } from '../../common/base/spiffe.ts';
import { IstioCertificateRequest, type IstioCertificateResponse, IstioCertificateServiceService } from '../../common/codec/gen/ca.ts';
import { CsrError, parseCsr } from '../../common/codec/x509/csr.ts';
import { readCertificate } from '../../common/codec/x509/read-certificate.ts';
import type { Gate } from '../access/access.ts';
import type { CallCredentials } from '../access/authenticate.ts';
import type { Caller } from '../access/token-review.ts';
import type { Metrics } from '../metrics.ts';
import type { Signed, SigningRequest } from './authority.ts';
import type { RequestLimits } from './request-limits.ts';

export interface CertificateServiceOptions {
  readonly access: Gate;
  readonly limits: Pick<RequestLimits, 'take'>;
  /** May take its time: an outside signer is asked over the network. */
  readonly sign: ((request: WorkloadRequest) => Signed | Promise<Signed>) | undefined;
  /** The pods are known; before that nobody can be authorised. */
  ready(): boolean;
  readonly trustDomain: string;
  readonly defaultLifetimeMs: number;
  readonly maxLifetimeMs: number;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** The request as its sender made it goes along: an outside signer wants that. */
export type WorkloadRequest = SigningRequest & { readonly csr: string };

type Code = 'UNIMPLEMENTED' | 'UNAUTHENTICATED' | 'INVALID_ARGUMENT' | 'UNAVAILABLE' | 'RESOURCE_EXHAUSTED' | 'INTERNAL';

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
    answer(options, call, call.request, context).then(
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
  call: CallCredentials,
  request: IstioCertificateRequest | undefined,
  context: Record<string, unknown>,
): Promise<string[]> {
  const { metrics, log, access, limits } = options;
  const { sign } = options;
  if (!sign) throw new Refusal('UNIMPLEMENTED', 'this istiod signs nothing (ENABLE_CA_SERVER is false): ask the CA of this mesh');
  if (!options.ready()) throw new Refusal('UNAVAILABLE', 'istiod has not read the cluster yet');
  if (!request) throw new Refusal('INVALID_ARGUMENT', 'the request is no IstioCertificateRequest');
  const authentication = await access.authenticate(call);
  if ('refuse' in authentication) {
    metrics.authenticationFailures.inc();
    throw new Refusal(authentication.refuse, authentication.message);
  }
  const { caller } = authentication;
  context.caller = `${caller.namespace}/${caller.serviceAccount}`;
  if (caller.podName) context.pod = caller.podName;
  if (!limits.take(`${context.caller}/${caller.podName}`)) throw new Refusal('RESOURCE_EXHAUSTED', 'too many certificates asked for');
  const identity = identityFor(options, caller, request);
  context.identity = identity;
  const lifetimeMs = lifetimeOf(options, request.validityDuration);
  const publicKeySpkiDer = readKey(options, request.csr);
  const { leaf, chain } = await signed(metrics, () => sign({ publicKeySpkiDer, uris: [identity], lifetimeMs, csr: request.csr }));
  metrics.issued.inc();
  // The audit line: who asked from where, for whom, and which certificate it was.
  const { serial, notAfter } = readCertificate(leaf);
  log.info({ ...context, serial, expires: new Date(notAfter).toISOString() }, 'certificate issued');
  return [...chain];
}

function identityFor(
  { access, trustDomain, metrics }: CertificateServiceOptions,
  caller: Caller,
  request: IstioCertificateRequest,
): string {
  const impersonated: unknown = request.metadata?.ImpersonatedIdentity;
  if (impersonated === undefined || impersonated === '') {
    const { namespace, serviceAccount } = caller;
    return formatSpiffeId({ trustDomain, namespace, serviceAccount });
  }
  const identity = typeof impersonated === 'string' ? impersonated.slice(0, 2048) : '';
  // Istio signs for any trust domain here; one that is not ours is another mesh's to prove.
  const foreign = parseSpiffeId(identity)?.trustDomain;
  const reason =
    foreign !== undefined && foreign !== trustDomain
      ? `trust domain ${foreign} is not ${trustDomain}`
      : access.mayNot('ca/impersonate', caller, { identity });
  if (reason === undefined) return identity;
  metrics.authenticationFailures.inc();
  // Details stay here: a stolen token should not be able to ask what runs where.
  throw new Refusal('UNAUTHENTICATED', 'request impersonation authentication failure', `${identity}: ${reason}`);
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

async function signed(metrics: Metrics, run: () => Signed | Promise<Signed>): Promise<Signed> {
  try {
    return await run();
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
