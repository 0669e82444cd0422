/** Where identities get their certificates from: Istio's certificate service, or files for a proxy without a control plane. */
import { createPrivateKey, generateKeyPair, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { errorMessage } from '../base/errors.ts';
import { parseSpiffeId } from '../base/spiffe.ts';
import type { SigningRequest } from '../client/ca-client.ts';
import { createCsr } from '../codec/x509/csr.ts';
import { splitCertificates } from '../codec/x509/pem.ts';
import { readCertificate } from '../codec/x509/read-certificate.ts';
import type { IdentityCertificate } from '../tls/mesh-tls.ts';
import type { CertificateSource, FetchedCertificate } from './keeper.ts';

const newKeyPair = promisify(generateKeyPair);

export interface CaSourceOptions {
  readonly ca: { sign(request: SigningRequest): Promise<readonly string[]> };
  readonly validitySeconds: number;
  /** A node's proxy asks for the identities of its pods; a dedicated one only for its own. */
  readonly impersonate: boolean;
}

/** A new key and a signing request for each certificate; the key is made here and goes nowhere. */
export function caSource({ ca, validitySeconds, impersonate }: CaSourceOptions): CertificateSource {
  return {
    async fetch(identity) {
      const { privateKey } = await newKeyPair('ec', { namedCurve: 'P-256' });
      const csr = createCsr({ uri: identity, key: privateKey });
      const chain = await ca.sign({ csr, validitySeconds, impersonate: impersonate ? identity : undefined });
      const key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
      return { ...assemble(key, chain, impersonate ? identity : undefined), identity };
    },
  };
}

/**
 * @param chain leaf, intermediates, and last the bundle of roots
 * @param identity what the leaf must say; undefined takes what it says
 * @throws {Error} saying what is wrong with the answer
 */
export function assemble(key: string, chain: readonly string[], identity: string | undefined): FetchedCertificate {
  const roots = chain.at(-1);
  if (chain.length < 2 || roots === undefined) throw new Error(`the CA sent ${chain.length} certificates, expected a leaf and its roots`);
  const leafAndIntermediates = chain.slice(0, -1).flatMap((pem) => certificatesOf(pem));
  certificatesOf(roots);
  return fetched(key, leafAndIntermediates, roots, identity);
}

/** What was issued earlier, looked at again. @throws {Error} saying what is wrong with it */
export function checkedCertificate({ key, chain, roots, identity }: IdentityCertificate): FetchedCertificate {
  certificatesOf(roots);
  return fetched(key, certificatesOf(chain), roots, identity);
}

const FILE_LOOK_AGAIN_MS = 60_000;

/**
 * `cert-chain.pem`, `key.pem` and `root-cert.pem` of a folder; in shared mode of NAMESPACE/SERVICEACCOUNT below it, and of the folder itself
 * where an identity has none of its own. Read again each minute, so that a rotated file is picked up.
 */
export function fileSource(folder: string): CertificateSource {
  return {
    lookAgainMs: FILE_LOOK_AGAIN_MS,
    async fetch(identity) {
      const id = parseSpiffeId(identity);
      if (!id) throw new Error(`not an identity: ${identity}`);
      // Names come from the control plane; as part of a path they must stay below the folder.
      const own = [id.namespace, id.serviceAccount].every((name) => /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/.test(name) && !name.includes('..'));
      const folders = own ? [join(folder, id.namespace, id.serviceAccount), folder] : [folder];
      let problem: unknown;
      for (const candidate of folders) {
        try {
          return await readFolder(candidate, identity);
        } catch (error) {
          problem = error;
          if (!isMissing(error)) throw error;
        }
      }
      throw problem;
    },
  };
}

async function readFolder(folder: string, identity: string): Promise<FetchedCertificate> {
  const [chain, key, roots] = await Promise.all(
    ['cert-chain.pem', 'key.pem', 'root-cert.pem'].map((name) => readFile(join(folder, name), 'utf8')),
  );
  if (chain === undefined || key === undefined || roots === undefined) throw new Error(`cannot read ${folder}`);
  try {
    certificatesOf(roots);
    return fetched(key, certificatesOf(chain), roots, identity);
  } catch (error) {
    throw new Error(`${folder}: ${errorMessage(error)}`, { cause: error });
  }
}

/** The certificates of a bundle, one PEM text each. @throws {Error} where one cannot be read, or there is none */
export function certificatesOf(pem: string): string[] {
  const found = splitCertificates(pem);
  if (found.length === 0) throw new Error('expected a PEM certificate');
  for (const one of found) new X509Certificate(one);
  return found;
}

function fetched(key: string, chain: readonly string[], roots: string, identity: string | undefined): FetchedCertificate {
  const [leaf] = chain;
  if (leaf === undefined) throw new Error('the chain has no certificate');
  const { uris, notBefore, notAfter } = readCertificate(leaf);
  const named = identity ?? uris.find((uri) => parseSpiffeId(uri) !== undefined);
  if (named === undefined || !uris.includes(named)) {
    throw new Error(`the certificate is for ${uris.join(', ') || 'nobody'}, expected ${identity ?? 'a SPIFFE identity'}`);
  }
  if (!new X509Certificate(leaf).checkPrivateKey(createPrivateKey(key)))
    throw new Error('certificate and private key do not belong together');
  return { identity: named, key, chain: chain.join(''), roots, notBefore, notAfter };
}

const isMissing = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'ENOENT';
