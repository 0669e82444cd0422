/**
 * Certificates and keys that outlive this process, in memory and nowhere else (decision 9): one file for each identity in a folder of a tmpfs
 * that root alone may enter. A container that restarts, or another pod in its place, serves with them until the CA answers again, and at the
 * latest until they expire.
 */
import { createHash, X509Certificate } from 'node:crypto';
import { readdirSync, readFileSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { FetchedCertificate } from '../../common/certificates/keeper.ts';
import { certificatesOf, checkedCertificate } from '../../common/certificates/sources.ts';
import { memoryFacts, openPrivateFolder, reachesDisk, replaceFile } from './private-folder.ts';

const VERSION = 1;
const SUFFIX = '.identity';
/** A chain and the roots of a mesh; more is not what we wrote. */
const MAX_FILE_BYTES = 1 << 20;

export interface KeptCertificatesOptions {
  readonly folder: string;
  readonly clock: Clock;
  readonly log: Log;
  /** PEM: the mesh's roots as they are now. What none of them has signed is of an earlier mesh. undefined where they are not at hand. */
  readonly roots?: string | undefined;
  /** Why the folder's files could reach a disk; undefined where they cannot. */
  readonly reachesDisk?: (folder: string) => string | undefined;
}

export class KeptCertificates {
  readonly #options: KeptCertificatesOptions;
  readonly #found = new Map<string, FetchedCertificate>();
  readonly #written = new Map<string, string>();

  private constructor(options: KeptCertificatesOptions) {
    this.#options = options;
  }

  /** Reads what is there; what is broken, expired or of another version is deleted. @returns undefined, and a line in the log, where keys cannot be kept there */
  static open(options: KeptCertificatesOptions): KeptCertificates | undefined {
    const { folder, log, reachesDisk: check = (path) => reachesDisk(path, memoryFacts(path)) } = options;
    try {
      openPrivateFolder(folder);
      const problem = check(folder);
      if (problem !== undefined) throw new Error(problem);
      const kept = new KeptCertificates(options);
      kept.#read();
      return kept;
    } catch (error) {
      log.warn({ folder, error: errorMessage(error) }, 'certificates are not kept over a restart');
      return undefined;
    }
  }

  /** Identities that there are files for. */
  get size(): number {
    return new Set([...this.#found.keys(), ...this.#written.keys()]).size;
  }

  /** What an earlier process left, while it is valid. */
  get(identity: string): FetchedCertificate | undefined {
    const certificate = this.#found.get(identity);
    return certificate && certificate.notAfter > this.#options.clock.now() ? certificate : undefined;
  }

  save(certificate: FetchedCertificate): void {
    const { folder, log } = this.#options;
    const { identity, key, chain, roots } = certificate;
    if (this.#written.get(identity) === chain + roots) return;
    try {
      replaceFile(folder, fileOf(identity), JSON.stringify({ version: VERSION, identity, key, chain, roots }));
      this.#written.set(identity, chain + roots);
    } catch (error) {
      log.warn({ identity, error: errorMessage(error) }, 'a certificate is not kept over a restart');
    }
  }

  /** Nobody here needs it any more, or nothing valid is left of it. */
  remove(identity: string): void {
    this.#found.delete(identity);
    this.#written.delete(identity);
    this.#unlink(fileOf(identity));
  }

  /** Removes what nobody has asked for: identities of pods that went while no ztunnel was here. */
  prune(needed: ReadonlySet<string>): void {
    for (const identity of [...this.#found.keys()]) if (!needed.has(identity)) this.remove(identity);
  }

  #read(): void {
    const { folder, log, clock, roots } = this.#options;
    for (const name of readdirSync(folder)) {
      if (!name.endsWith(SUFFIX) || name.startsWith('.')) {
        // Left by a process that was killed while it wrote.
        if (name.startsWith('.')) this.#unlink(name);
        continue;
      }
      try {
        const certificate = parse(readFileSync(join(folder, name)));
        if (fileOf(certificate.identity) !== name) throw new Error(`the file of ${certificate.identity} has another name`);
        if (certificate.notAfter <= clock.now()) throw new Error('it has expired');
        if (roots !== undefined && !isSignedBy(certificate.chain, roots)) throw new Error('no root of the mesh as it is now has signed it');
        this.#found.set(certificate.identity, certificate);
      } catch (error) {
        log.warn({ file: name, error: errorMessage(error) }, 'a kept certificate is of no use');
        this.#unlink(name);
      }
    }
  }

  #unlink(name: string): void {
    try {
      unlinkSync(join(this.#options.folder, name));
    } catch {
      // It was not there, which is what was wanted.
    }
  }
}

function isSignedBy(chain: string, roots: string): boolean {
  const last = certificatesOf(chain).at(-1);
  if (last === undefined) return false;
  const top = new X509Certificate(last);
  return certificatesOf(roots).some((pem) => {
    const root = new X509Certificate(pem);
    return top.fingerprint256 === root.fingerprint256 || (top.checkIssued(root) && top.verify(root.publicKey));
  });
}

const fileOf = (identity: string): string => `${createHash('sha256').update(identity).digest('hex')}${SUFFIX}`;

/** @throws {Error} saying what is wrong; never with the file's text, which has a key in it */
function parse(bytes: Buffer): FetchedCertificate {
  if (bytes.length > MAX_FILE_BYTES) throw new Error(`${bytes.length} bytes`);
  let read: unknown;
  try {
    read = JSON.parse(bytes.toString());
  } catch {
    throw new Error('it is no JSON');
  }
  if (typeof read !== 'object' || read === null) throw new Error('it is no JSON object');
  const { version, identity, key, chain, roots } = read as Record<string, unknown>;
  if (version !== VERSION) throw new Error(`it has version ${String(version).slice(0, 20)}, expected ${VERSION}`);
  if (typeof identity !== 'string' || typeof key !== 'string' || typeof chain !== 'string' || typeof roots !== 'string') {
    throw new Error('identity, key, chain or roots are missing');
  }
  return checkedCertificate({ identity, key, chain, roots });
}
