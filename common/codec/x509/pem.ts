/** PEM, as RFC 7468 writes it: base64 in lines of 64 between BEGIN and END. */

/** With a newline at the end. */
export function encodePem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]*)-----END \1-----/g;

/** The blocks of a text in their order; text around them is ignored, as OpenSSL does. Empty where there is none. */
export function decodePem(text: string): { readonly label: string; readonly der: Buffer }[] {
  return [...text.matchAll(BLOCK)].map(([, label = '', body = '']) => ({ label, der: Buffer.from(body, 'base64') }));
}

/** The CERTIFICATE blocks of a bundle, each as PEM by itself. */
export function splitCertificates(bundle: string): string[] {
  return decodePem(bundle).flatMap(({ label, der }) => (label === 'CERTIFICATE' ? [encodePem(label, der)] : []));
}
