/** Which CA signs for the mesh: the operator's where there is one in the folder, otherwise a root of the mesh's own. */
import type { Authority } from './authority.ts';
import type { CaSecret } from './ca-secret.ts';
import { hasCa, PluggedInCa, type PluggedInOptions } from './plugged-in.ts';
import { SelfSignedCa, type SelfSignedOptions } from './self-signed.ts';

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

/** @throws Error naming file or Secret and what is wrong with it */
export async function openCa(options: SelfSignedOptions & PluggedInOptions): Promise<CertificateAuthority> {
  return hasCa(options.directory) ? new PluggedInCa(options) : SelfSignedCa.open(options);
}
