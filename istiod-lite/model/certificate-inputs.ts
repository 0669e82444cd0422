/** Certificates in ConfigMaps and Secrets, and what refers to them. */
import { isDeepStrictEqual } from 'node:util';
import type { CertificateSource, FoundCertificates } from './certificate-sources.ts';
import { Dependents } from './dependents.ts';

export class CertificateInputs {
  readonly #found = new Map<string, FoundCertificates>();
  readonly #users = new Dependents();
  readonly #stale: (user: string) => void;

  /** @param stale what was made from certificates is made anew: `traffic KEY`, `rule KEY`, or the id of a policy */
  constructor(stale: (user: string) => void) {
    this.#stale = stale;
  }

  at(source: CertificateSource): FoundCertificates | undefined {
    return this.#found.get(source);
  }

  /** Where certificates come from that something refers to now. */
  sources(): ReadonlySet<CertificateSource> {
    return new Set(this.#users.all() as Iterable<CertificateSource>);
  }

  /** Remembers what refers to which certificates. @param user `traffic KEY`, `rule KEY`, or the id of a policy */
  record(user: string, sources: ReadonlySet<CertificateSource>): void {
    this.#users.record(user, sources);
  }

  set(source: CertificateSource, found: FoundCertificates | undefined): void {
    if (isDeepStrictEqual(this.#found.get(source), found)) return;
    if (found) this.#found.set(source, found);
    else this.#found.delete(source);
    for (const user of this.#users.users(source)) this.#stale(user);
  }
}
