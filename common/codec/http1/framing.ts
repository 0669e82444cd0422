/** How a body ends, where it is not a number of bytes (RFC 9112 §6.3). Negative, so that one number says it all. */
export const Framing = {
  CHUNKED: -1,
  /** All that comes until the peer ends its direction: responses only. */
  UNTIL_CLOSE: -2,
  /** No HTTP any more: the connection has changed its protocol. */
  RAW: -3,
} as const;
