/** Which CA signs for the mesh: the operator's where there is one in the folder, otherwise a root of the mesh's own. */
import type { CertificateAuthority } from './certificate-authority.ts';
import { hasCa, PluggedInCa, type PluggedInOptions } from './plugged-in.ts';
import { SelfSignedCa, type SelfSignedOptions } from './self-signed.ts';

/** @throws Error naming file or Secret and what is wrong with it */
export async function openCa(options: SelfSignedOptions & PluggedInOptions): Promise<CertificateAuthority> {
  return hasCa(options.directory) ? new PluggedInCa(options) : SelfSignedCa.open(options);
}
