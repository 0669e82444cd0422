/** Who an echo server says it is, on every port. */
export interface Identity {
  readonly version: string;
  readonly cluster: string;
  readonly hostname: string;
  readonly port: number;
}

/** IPv4 as IPv4, though the socket is dual-stack. */
export const plainIp = (ip: string | undefined): string => (ip ?? '').replace(/^::ffff:(?=\d+\.)/, '');
