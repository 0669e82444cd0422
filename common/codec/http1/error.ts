/** A message that is no HTTP/1.1, with the status that a server answers it with. After it nothing more can be read from the connection. */

export class Http1Error extends Error {
  /** 400, 408, 414, 417, 431, 501 or 505; of no meaning for a response. */
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = 'Http1Error';
    this.status = status;
  }
}

export const bad = (message: string): Http1Error => new Http1Error(400, message);
