/**
 * istiod's own certificate from files (Secret `istiod-tls`, mounted), where another CA signs for the mesh: read again when they change, since
 * whoever issued it renews it there.
 * @see Istio: pilot/pkg/bootstrap/certcontroller.go
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Clock, seconds, type Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { CertificateListeners, type ServerCertificate } from './serving-certificate.ts';

export interface ServedFilesOptions {
  /** Has tls.crt and tls.key. */
  readonly directory: string;
  /** Roots against which certificates of clients are verified; none are taken where it is missing. */
  readonly rootsFile: string;
  readonly clock: Clock;
  readonly log: Log;
}

const LOOK_EVERY_MS = seconds(30);

export const hasServedFiles = (directory: string): boolean => existsSync(join(directory, 'tls.crt'));

export class ServedFiles implements ServerCertificate {
  readonly #options: ServedFilesOptions;
  readonly #listeners: CertificateListeners;
  #said = '';
  #timer: Timer | undefined;

  /** @throws Error naming the file and what is wrong with it */
  constructor(options: ServedFilesOptions) {
    this.#options = options;
    this.#listeners = new CertificateListeners(this.#read());
    this.#arm();
  }

  get provider() {
    return this.#listeners.provider;
  }

  /** What has changed is taken; what cannot be used changes nothing, and is said once. */
  renew(): void {
    try {
      this.#listeners.update(this.#read());
      this.#said = '';
    } catch (error) {
      const message = errorMessage(error);
      if (message !== this.#said)
        this.#options.log.error({ error: message }, "istiod's certificate cannot be read again; the last good one stays");
      this.#said = message;
    }
  }

  close(): void {
    this.#timer?.cancel();
  }

  #arm(): void {
    this.#timer = this.#options.clock.after(LOOK_EVERY_MS, () => {
      this.renew();
      this.#arm();
    });
  }

  #read() {
    const { directory, rootsFile } = this.#options;
    const [certificate, privateKey] = ['tls.crt', 'tls.key'].map((name) => readFileSync(join(directory, name))) as [Buffer, Buffer];
    try {
      if (!new X509Certificate(certificate).checkPrivateKey(createPrivateKey(privateKey)))
        throw new Error('tls.key is not the key of tls.crt');
    } catch (error) {
      throw new Error(`${directory}: ${errorMessage(error)}`, { cause: error });
    }
    return { certificate, privateKey, roots: existsSync(rootsFile) ? readFileSync(rootsFile) : Buffer.alloc(0) };
  }
}
