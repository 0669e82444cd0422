/**
 * TLS as the mesh speaks it (Istio's ztunnel, src/tls): version 1.3 only, AES-GCM only, a certificate on both sides, ALPN `h2`, no server
 * name, no resumption. What a certificate must say is checked after the handshake, on SPIFFE identities and never on names.
 */
import { constants } from 'node:crypto';
import { createSecureContext, type PeerCertificate, type SecureContext, type SecureContextOptions, type TLSSocket } from 'node:tls';
import { formatSpiffeId, parseSpiffeId, type SpiffeId } from '../base/spiffe.ts';

/** What a workload proves its identity with. All PEM; never logged, never written to a disk. */
export interface IdentityCertificate {
  /** `spiffe://…`, as the leaf says. */
  readonly identity: string;
  /** PKCS#8. */
  readonly key: string;
  /** Leaf first, then intermediates; no root. */
  readonly chain: string;
  /** All roots of the mesh, one after the other. */
  readonly roots: string;
}

export interface MeshTlsOptions {
  /** Offer and accept post-quantum key exchange only (COMPLIANCE_POLICY=pqc). */
  readonly postQuantumOnly: boolean;
  /** Take TLS 1.2 as well (TLS12_ENABLED), with ephemeral keys and AES-GCM only. */
  readonly tls12?: boolean;
}

const TLS12_SUITES = 'ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256';

export const MESH_ALPN = ['h2'];

/** Options of a mesh endpoint's secure context: usable with `tls.createServer` and `setSecureContext` as they are. */
export function meshContextOptions(
  certificate: IdentityCertificate,
  { postQuantumOnly, tls12 = false }: MeshTlsOptions,
): SecureContextOptions {
  return {
    key: certificate.key,
    cert: certificate.chain,
    ca: certificate.roots,
    minVersion: tls12 ? 'TLSv1.2' : 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ciphers: ['TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256', ...(tls12 ? [TLS12_SUITES] : [])].join(':'),
    // A ticket would let a peer come back without showing its certificate again; a new handshake on an open connection, as somebody else.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
    ...(postQuantumOnly ? { ecdhCurve: 'X25519MLKEM768' } : {}),
  };
}

/** @throws {Error} where key and chain do not fit each other, or one of them cannot be read */
export function meshContext(certificate: IdentityCertificate, options: MeshTlsOptions): SecureContext {
  return createSecureContext(meshContextOptions(certificate, options));
}

/** For `checkServerIdentity`: names say nothing in the mesh; the caller compares SPIFFE identities once the handshake is over. */
export const ignoreServerName = (_hostname: string, _certificate: PeerCertificate): undefined => undefined;

/** URI names of the peer's leaf, in its order; empty where there is no certificate. */
export function peerUris(socket: TLSSocket): readonly string[] {
  return uriNames(socket.getPeerX509Certificate()?.subjectAltName ?? '');
}

/** The first URI name that is a SPIFFE identity: who the peer is for policy and telemetry. */
export function firstSpiffeId(uris: readonly string[]): SpiffeId | undefined {
  for (const uri of uris) {
    const id = parseSpiffeId(uri);
    if (id) return id;
  }
  return undefined;
}

/** Whether any of the peer's names is a SPIFFE identity of this trust domain. There are no aliases (Istio's ztunnel, src/tls). */
export function belongsToTrustDomain(uris: readonly string[], trustDomain: string): boolean {
  return uris.some((uri) => parseSpiffeId(uri)?.trustDomain === trustDomain);
}

/** Whether any of the peer's names is one of the identities that we meant to reach. An empty list matches nobody. */
export function isExpectedPeer(uris: readonly string[], expected: readonly string[]): boolean {
  return uris.some((uri) => {
    const id = parseSpiffeId(uri);
    return id !== undefined && expected.includes(formatSpiffeId(id));
  });
}

/**
 * The URI entries of Node's `subjectAltName` text. Node writes entries that contain a comma, a quote or a control character as JSON strings
 * (CVE-2021-44532), so an entry cannot pretend to be two.
 */
export function uriNames(subjectAltName: string): string[] {
  const names: string[] = [];
  for (const [, kind, quoted, plain] of subjectAltName.matchAll(/(?:^|, )([A-Za-z ]+):(?:("(?:[^"\\]|\\.)*")|([^,]*))/g)) {
    if (kind !== 'URI') continue;
    names.push(quoted === undefined ? (plain ?? '') : unquote(quoted));
  }
  return names;
}

function unquote(json: string): string {
  try {
    return String(JSON.parse(json));
  } catch {
    // Not JSON after all: such a name is nobody's identity.
    return '';
  }
}
