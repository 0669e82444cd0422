/** What a certificate says, for those who check, show and renew it. */
import { X509Certificate } from 'node:crypto';

export interface CertificateFacts {
  /** Lower-case hex, as `openssl x509 -serial` in lower case. */
  readonly serial: string;
  /** Milliseconds since 1970. */
  readonly notBefore: number;
  readonly notAfter: number;
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  /** Distinguished names in OpenSSL's one-line-each form; empty for workloads. */
  readonly subject: string;
  readonly issuer: string;
  readonly isCa: boolean;
}

/** The first certificate of a PEM text. @throws Error where there is none that can be read */
export function readCertificate(pem: string): CertificateFacts {
  const read = new X509Certificate(pem);
  const names = alternativeNames(read.subjectAltName ?? '');
  return {
    serial: read.serialNumber.toLowerCase(),
    notBefore: read.validFromDate.getTime(),
    notAfter: read.validToDate.getTime(),
    uris: names.flatMap(({ kind, value }) => (kind === 'URI' ? [value] : [])),
    dnsNames: names.flatMap(({ kind, value }) => (kind === 'DNS' ? [value] : [])),
    subject: read.subject ?? '',
    issuer: read.issuer ?? '',
    isCa: read.ca,
  };
}

// `URI:spiffe://a, DNS:b`; Node writes a value in JSON quotes where it contains a comma or anything else that could be mistaken.
const NAME = /(?:^|, )(\w[\w ]*):("(?:[^"\\]|\\.)*"|[^,]*)/g;

const alternativeNames = (text: string): { kind: string; value: string }[] =>
  [...text.matchAll(NAME)].map(([, kind = '', value = '']) => ({
    kind,
    value: value.startsWith('"') ? String(JSON.parse(value)) : value,
  }));
