/**
 * Certificates that policies refer to by name: roots in ConfigMaps (BackendTLSPolicy), certificates with keys in Secrets (DestinationRule). Only
 * what somebody refers to is read, each by its name; what was found is given to the translation, which opens nothing.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { at, isRecord, text } from './objects.ts';

/** `ConfigMap namespace/name` or `Secret namespace/name`. */
export type CertificateSource = `${'ConfigMap' | 'Secret'} ${string}/${string}`;

/** What is known of a source; undefined as long as nothing is. */
export interface FoundCertificates {
  /** PEM; empty where there is none. */
  readonly roots: string;
  readonly certificate: string;
  readonly privateKey: string;
  /** Why it cannot be used; it says nothing of what is in it. */
  readonly problem: string | undefined;
}

export type CertificatesAt = (source: CertificateSource) => FoundCertificates | undefined;

const NOTHING: Omit<FoundCertificates, 'problem'> = { roots: '', certificate: '', privateKey: '' };

const missingCertificates = (problem: string): FoundCertificates => ({ ...NOTHING, problem });

const MAX_BYTES = 256 << 10;

/** Roots under `ca.crt`. @param object undefined where there is no such ConfigMap */
export function readRootsMap(source: string, object: unknown): FoundCertificates {
  if (object === undefined) return missingCertificates(`there is no ${source}`);
  const roots = text(at(object, 'data', 'ca.crt'));
  if (roots === '') return missingCertificates(`${source} has no ca.crt`);
  const problem = certificateProblem(roots);
  return problem === undefined ? { ...NOTHING, roots, problem: undefined } : missingCertificates(`${source}: ca.crt ${problem}`);
}

/**
 * A Secret as Istio takes it for `credentialName`: tls.crt, tls.key and ca.crt, or cert, key and cacert.
 * @param object undefined where there is no such Secret
 */
export function readCredential(source: string, object: unknown): FoundCertificates {
  if (object === undefined) return missingCertificates(`there is no ${source}`);
  const data = isRecord(at(object, 'data')) ? (at(object, 'data') as Record<string, unknown>) : {};
  const decoded = (...keys: readonly string[]): string => {
    const found = keys.map((key) => text(data[key])).find((value) => value !== '') ?? '';
    return Buffer.from(found, 'base64').toString();
  };
  const [certificate, privateKey, roots] = [decoded('tls.crt', 'cert'), decoded('tls.key', 'key'), decoded('ca.crt', 'cacert')];
  for (const [name, pem] of [
    ['certificate', certificate],
    ['ca.crt', roots],
  ] as const) {
    const problem = pem === '' ? undefined : certificateProblem(pem);
    if (problem !== undefined) return missingCertificates(`${source}: its ${name} ${problem}`);
  }
  if (certificate !== '' || privateKey !== '') {
    const problem = pairProblem(certificate, privateKey);
    if (problem !== undefined) return missingCertificates(`${source}: ${problem}`);
  }
  if (certificate === '' && roots === '') return missingCertificates(`${source} has neither tls.crt nor ca.crt`);
  return { roots, certificate, privateKey, problem: undefined };
}

function certificateProblem(pem: string): string | undefined {
  if (pem.length > MAX_BYTES) return `is longer than ${MAX_BYTES} bytes`;
  try {
    new X509Certificate(pem);
    return undefined;
  } catch {
    // What exactly is wrong is not for a status: it might repeat what was written there.
    return 'is no certificate in PEM';
  }
}

function pairProblem(certificate: string, privateKey: string): string | undefined {
  if (certificate === '') return 'a key without its certificate';
  if (privateKey === '') return 'a certificate without its key';
  try {
    return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(privateKey))
      ? undefined
      : 'the key is not that of the certificate';
  } catch {
    // As above.
    return 'the key cannot be read';
  }
}
