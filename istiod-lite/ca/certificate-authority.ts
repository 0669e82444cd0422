/** What every kind of CA of the mesh's own can be asked. */
import type { Authority } from './authority.ts';
import type { CaSecret } from './ca-secret.ts';

export interface CertificateAuthority {
  /** What signs now. */
  readonly current: Authority;
  /** Revoked certificates, as the operator brings them; '' where there are none. */
  readonly crlPem: string;
  /** A certificate that is valid until then was signed. */
  issued(notAfter: number): void;
  /** This replica may have become the writer. */
  act(): void;
  /** What a watch says of the Secret of the root. */
  secretChanged(secret: CaSecret | undefined): void;
  /** For people: source, certificates, where a rotation stands. */
  describe(): unknown;
  close(): void;
}
