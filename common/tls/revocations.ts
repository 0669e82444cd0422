/**
 * Who may no longer use a certificate: looked at when a handshake is over, for every certificate of the peer's chain, and again for the
 * connections that are open whenever the list changes (Istio's ztunnel, src/tls/revocation.rs). What no list speaks of is not revoked.
 */
import type { TLSSocket } from 'node:tls';
import { ProxyError } from '../base/errors.ts';
import { certificateKey, type RevokedSerials } from '../codec/x509/crl.ts';

export interface RevocationsOptions {
  /** A peer was refused, or its open connection ended. */
  onRevoked(reporter: Reporter): void;
  /** A peer's certificates could not be read, so that its connection cannot be looked at again. */
  onUntracked(reporter: Reporter): void;
}

/** Which end of the connection we are, as metrics call it. */
export type Reporter = 'source' | 'destination';

type Key = ReturnType<typeof certificateKey>;

/** A chain of more certificates than this is a mistake. */
const MAX_CHAIN = 10;

export class Revocations {
  readonly #options: RevocationsOptions;
  readonly #open = new Map<TLSSocket, { readonly keys: readonly Key[]; readonly reporter: Reporter }>();
  #revoked: RevokedSerials | undefined;

  constructor(options: RevocationsOptions) {
    this.#options = options;
  }

  /** The list is another one. Open connections of whoever is on it end. @returns how many */
  update(revoked: RevokedSerials): number {
    this.#revoked = revoked;
    let ended = 0;
    for (const [tls, { keys, reporter }] of [...this.#open]) {
      const serial = this.#find(keys);
      if (serial === undefined) continue;
      ended++;
      this.#open.delete(tls);
      this.#options.onRevoked(reporter);
      tls.destroy(refusal(serial));
    }
    return ended;
  }

  /** To be asked when a handshake is over; watches the connection from then on. @throws {ProxyError} CERT_REVOKED */
  admit(tls: TLSSocket, reporter: Reporter): void {
    // Without a list nobody has to know who is connected; with one, it is there before the first connection.
    if (!this.#revoked) return;
    let keys: Key[];
    try {
      keys = keysOf(tls);
    } catch {
      // OpenSSL took what we cannot read. Nothing says that it is revoked.
      this.#options.onUntracked(reporter);
      return;
    }
    const serial = this.#find(keys);
    if (serial !== undefined) {
      this.#options.onRevoked(reporter);
      throw refusal(serial);
    }
    this.#open.set(tls, { keys, reporter });
    tls.once('close', () => this.#open.delete(tls));
  }

  #find(keys: readonly Key[]): string | undefined {
    return keys.find(({ issuer, serial }) => this.#revoked?.get(issuer)?.has(serial))?.serial;
  }
}

const refusal = (serial: string): ProxyError =>
  new ProxyError('CERT_REVOKED', `a certificate of the peer has been revoked (serial number ${serial})`);

/** The chain as OpenSSL built it: what a peer sent beside it says nothing. @throws {Error} */
function keysOf(tls: TLSSocket): Key[] {
  const keys: Key[] = [];
  let certificate = tls.getPeerX509Certificate();
  for (; certificate && keys.length < MAX_CHAIN; certificate = certificate.issuerCertificate) {
    keys.push(certificateKey(certificate.raw));
    if (certificate.issuer === certificate.subject) break;
  }
  if (keys.length === 0) throw new Error('no certificate');
  return keys;
}
