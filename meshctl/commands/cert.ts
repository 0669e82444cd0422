/**
 * `meshctl cert`: certificates for proxies without a control plane. `init` makes a CA in a folder, `issue` signs identities with it, or with
 * any CA whose folder has Istio's file names (that of a `cacerts` Secret). The files are what ztunnel's CERT_DIR reads.
 */
import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { duration } from '../../common/base/settings.ts';
import { formatSpiffeId, parseSpiffeId } from '../../common/base/spiffe.ts';
import { issueCertificate, readIssuer, selfSignedRoot } from '../../common/codec/x509/certificate.ts';
import { CommandError } from '../command-error.ts';

const DAY_MS = 86_400_000;
/** A clock that is a little behind must not refuse what was issued a moment ago. */
const BACKDATE_MS = 120_000;

export interface InitOptions {
  readonly ca: string;
  readonly trustDomain: string;
  readonly days: string;
}

export interface IssueOptions {
  readonly ca: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly trustDomain: string;
  readonly ttl: string;
  readonly out: string;
}

/** @returns what was done @throws {CommandError} where there is a CA already, or nothing can be written */
export function initCa({ ca, trustDomain, days }: InitOptions, now: number): string {
  if (!/^[1-9]\d{0,4}$/.test(days)) throw new CommandError(`--days ${days}: expected a number of days`);
  if (existsSync(join(ca, 'ca-key.pem')))
    throw new CommandError(`${ca} has a CA already; what it signed would be worth nothing with another one`);
  assertIdentity({ trustDomain, namespace: 'x', serviceAccount: 'x' });
  const made = selfSignedRoot({ trustDomain, notBefore: now - BACKDATE_MS, notAfter: now + Number(days) * DAY_MS });
  writing(ca, () => {
    mkdirSync(ca, { recursive: true, mode: 0o700 });
    secret(join(ca, 'ca-key.pem'), made.keyPem);
    replace(join(ca, 'ca-cert.pem'), made.certificatePem);
    replace(join(ca, 'root-cert.pem'), made.certificatePem);
  });
  return `A CA for ${trustDomain} is in ${ca}. Keep ca-key.pem to yourself; hosts need none of it.`;
}

/** @returns what was done @throws {CommandError} for a folder without a CA, a name or a life that is none */
export function issue({ ca, namespace, serviceAccount, trustDomain, ttl, out }: IssueOptions, now: number): string {
  const identity = assertIdentity({ trustDomain, namespace, serviceAccount });
  let lifeMs: number;
  try {
    lifeMs = duration.parse(ttl);
  } catch (error) {
    throw new CommandError(`--ttl ${ttl}: ${error instanceof Error ? error.message : error}`);
  }
  const read = (name: string): string | undefined => (existsSync(join(ca, name)) ? readFileSync(join(ca, name), 'utf8') : undefined);
  const [certificatePem, keyPem] = [read('ca-cert.pem'), read('ca-key.pem')];
  if (certificatePem === undefined || keyPem === undefined) {
    throw new CommandError(`${ca} has no ca-cert.pem and ca-key.pem; make them with: meshctl cert init --ca ${ca}`);
  }
  const roots = read('root-cert.pem') ?? certificatePem;
  // Of an intermediate CA the whole way up to the root, which the peer has.
  const above = roots.includes(certificatePem.trim()) ? '' : (read('cert-chain.pem') ?? certificatePem);
  try {
    const issuer = readIssuer({ certificatePem, keyPem });
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const notAfter = now + lifeMs;
    const leaf = issueCertificate({
      issuer,
      publicKeySpkiDer: createPublicKey(privateKey).export({ type: 'spki', format: 'der' }),
      uris: [identity],
      notBefore: now - BACKDATE_MS,
      notAfter,
    });
    writing(out, () => {
      mkdirSync(out, { recursive: true });
      // The key first: a proxy that reads between the two finds a pair that does not fit, keeps the old one and looks again.
      secret(join(out, 'key.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }).toString());
      replace(join(out, 'cert-chain.pem'), `${leaf}${above}`);
      replace(join(out, 'root-cert.pem'), roots);
    });
    const until = new Date(Math.min(notAfter, issuer.notAfter)).toISOString().slice(0, 16).replace('T', ' ');
    return `${identity}, until ${until} UTC, is in ${out}.`;
  } catch (error) {
    if (error instanceof CommandError) throw error;
    throw new CommandError(`the CA in ${ca} cannot be used: ${error instanceof Error ? error.message : error}`);
  }
}

function assertIdentity(id: { trustDomain: string; namespace: string; serviceAccount: string }): string {
  const identity = formatSpiffeId(id);
  const names = [id.trustDomain, id.namespace, id.serviceAccount];
  if (!parseSpiffeId(identity) || names.some((name) => !/^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$/.test(name))) {
    throw new CommandError(`no identity: ${identity}`);
  }
  return identity;
}

function writing(folder: string, write: () => void): void {
  try {
    write();
  } catch (error) {
    throw new CommandError(`cannot write to ${folder}: ${error instanceof Error ? error.message : error}`);
  }
}

function secret(path: string, text: string): void {
  replace(path, text, 0o600);
}

/** Readers see the old file or the new one. */
function replace(path: string, text: string, mode = 0o644): void {
  writeFileSync(`${path}.new`, text, { mode });
  chmodSync(`${path}.new`, mode);
  renameSync(`${path}.new`, path);
}
