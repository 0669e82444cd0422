/**
 * A CA that the operator brings: files of Istio's `cacerts`, or of a `kubernetes.io/tls` Secret, mounted into a folder and read again when they
 * change. Another signing certificate is taken at once. Other roots are taken only where one that everybody trusts already is among them:
 * certificates that are out there must stay good.
 * @see Istio: security/pkg/pki/util/keycertbundle.go, pilot/pkg/bootstrap/istio_ca.go
 */
import { existsSync, readFileSync, watch } from 'node:fs';
import { join } from 'node:path';
import { type Clock, minutes, type Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { decodePem } from '../../common/codec/x509/pem.ts';
import { Authority, type CaMaterial } from './authority.ts';
import type { CertificateAuthority } from './certificate-authority.ts';

export interface PluggedInOptions {
  readonly directory: string;
  readonly clock: Clock;
  readonly log: Log;
  onChange(): void;
  /** A change was taken over, or why it was not. */
  reloaded(outcome: 'taken' | 'refused'): void;
}

interface Files {
  readonly material: CaMaterial;
  readonly crlPem: string;
}

/** Kubernetes swaps a mounted Secret in several steps. */
const SETTLED_MS = 100;
// Where the folder cannot be watched, or a watch was lost with it.
const LOOK_EVERY_MS = minutes(1);

export class PluggedInCa implements CertificateAuthority {
  readonly #options: PluggedInOptions;
  #files: Files;
  #current: Authority;
  #problem = '';
  #soon: Timer | undefined;
  #later: Timer | undefined;
  #unwatch: () => void = () => undefined;

  /** @throws Error naming the folder and what is wrong in it */
  constructor(options: PluggedInOptions) {
    this.#options = options;
    const files = readFiles(options.directory);
    if (!files) throw new Error(`${options.directory} has no CA certificate`);
    this.#files = files;
    this.#current = new Authority(files.material, options.clock);
    options.log.info(
      { source: options.directory, expires: new Date(this.#current.rootNotAfter).toISOString() },
      'certificate authority ready',
    );
    this.#watch();
  }

  get current(): Authority {
    return this.#current;
  }

  get crlPem(): string {
    return this.#files.crlPem;
  }

  describe(): unknown {
    return { source: this.#options.directory, ...this.#current.describe(), ...(this.#problem && { problem: this.#problem }) };
  }

  // All of it is the operator's: nothing is ours to change, and nothing of a Secret concerns us.
  issued(): void {}
  act(): void {}
  secretChanged(): void {}

  close(): void {
    this.#unwatch();
    this.#soon?.cancel();
    this.#later?.cancel();
  }

  /** Reads the files again; what cannot be used changes nothing. */
  reload(): void {
    const { directory, clock, log, onChange, reloaded } = this.#options;
    try {
      const files = readFiles(directory);
      if (!files) throw new Error('there is no CA certificate any more');
      if (sameFiles(files, this.#files)) return;
      const authority = new Authority(files.material, clock);
      if (!authority.roots.some((root) => this.#current.roots.includes(root)))
        throw new Error('none of the roots is trusted by the mesh now: first bring a root-cert.pem with the old and the new one');
      this.#files = files;
      this.#current = authority;
      this.#problem = '';
      reloaded('taken');
      log.info(
        { source: directory, roots: authority.roots.length, expires: new Date(authority.signerNotAfter).toISOString() },
        'the CA was reloaded',
      );
      onChange();
    } catch (error) {
      if (this.#problem === errorMessage(error)) return;
      this.#problem = errorMessage(error);
      reloaded('refused');
      log.error({ source: directory, error: this.#problem }, 'the CA in the folder cannot be used; the last good one stays');
    }
  }

  #watch(): void {
    const { clock, directory } = this.#options;
    try {
      const watcher = watch(directory, () => {
        this.#soon?.cancel();
        this.#soon = clock.after(SETTLED_MS, () => this.reload());
      });
      watcher.on('error', () => watcher.close());
      watcher.unref();
      this.#unwatch = () => watcher.close();
    } catch {
      // It is looked at each minute anyway.
    }
    this.#look();
  }

  #look(): void {
    this.#later = this.#options.clock.after(LOOK_EVERY_MS, () => {
      this.reload();
      this.#look();
    });
  }
}

const ISTIO = { certificate: 'ca-cert.pem', key: 'ca-key.pem', chain: 'cert-chain.pem', roots: 'root-cert.pem' };
/** Of type kubernetes.io/tls, as cert-manager writes it: `tls.crt` is the whole chain. */
const KUBERNETES = { certificate: 'tls.crt', key: 'tls.key', chain: 'tls.crt', roots: 'ca.crt' };
const CRL = 'ca-crl.pem';

/** Whether an operator brings a CA there. */
export const hasCa = (directory: string): boolean =>
  existsSync(join(directory, ISTIO.certificate)) || existsSync(join(directory, KUBERNETES.certificate));

function readFiles(directory: string): Files | undefined {
  if (!hasCa(directory)) return undefined;
  const names = existsSync(join(directory, ISTIO.certificate)) ? ISTIO : KUBERNETES;
  const file = (name: string): string => readFileSync(join(directory, name), 'utf8');
  try {
    const material = {
      certificatePem: file(names.certificate),
      keyPem: file(names.key),
      chainPem: file(names.chain),
      rootBundlePem: file(names.roots),
    };
    const crlPem = existsSync(join(directory, CRL)) ? file(CRL) : '';
    if (crlPem !== '' && !decodePem(crlPem).some(({ label }) => label === 'X509 CRL')) throw new Error(`${CRL} has no block X509 CRL`);
    return { material, crlPem };
  } catch (error) {
    throw new Error(`${directory} has a ${names.certificate} but is incomplete: ${errorMessage(error)}`, { cause: error });
  }
}

const sameFiles = (a: Files, b: Files): boolean =>
  a.crlPem === b.crlPem && (Object.keys(a.material) as (keyof CaMaterial)[]).every((name) => a.material[name] === b.material[name]);
