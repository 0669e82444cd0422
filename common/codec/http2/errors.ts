/**
 * HTTP/2's error codes, and the two ways in which a peer can be wrong: an error that ends the connection is thrown; one that ends a
 * stream is reported beside it, because the other streams go on.
 */

/** RFC 9113, section 7. */
export const ErrorCode = {
  NO_ERROR: 0x0,
  PROTOCOL_ERROR: 0x1,
  INTERNAL_ERROR: 0x2,
  FLOW_CONTROL_ERROR: 0x3,
  SETTINGS_TIMEOUT: 0x4,
  STREAM_CLOSED: 0x5,
  FRAME_SIZE_ERROR: 0x6,
  REFUSED_STREAM: 0x7,
  CANCEL: 0x8,
  COMPRESSION_ERROR: 0x9,
  CONNECT_ERROR: 0xa,
  ENHANCE_YOUR_CALM: 0xb,
  INADEQUATE_SECURITY: 0xc,
  HTTP_1_1_REQUIRED: 0xd,
} as const;

const names = new Map<number, string>(Object.entries(ErrorCode).map(([name, code]) => [code, name]));

/** `PROTOCOL_ERROR`, or `0x1234` for a code that the RFC does not name. */
export const errorCodeName = (code: number): string => names.get(code) ?? `0x${code.toString(16)}`;

/** A violation after which the connection cannot go on (RFC 9113, section 5.4.1): answered with GOAWAY and this code. */
export class Http2ConnectionError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.name = 'Http2ConnectionError';
    this.code = code;
  }
}
