// For programs in pods (pod-program.ts): a client that keeps its HTTP/2 connection, as gRPC's clients do: one that was asked to go takes no more
// requests, those that it has end there, and what was never sent goes over the next.
import http2 from 'node:http2';

/**
 * @param opened called for each connection. @param limit given each stream.
 * @returns asks for the URL's root: its status and body. It rejects with what the connection or the server said
 */
export function keptHttp2(url, opened, limit) {
  let session;
  const open = () => {
    const one = http2.connect(url);
    opened();
    const leave = () => { if (session === one) session = undefined; };
    one.on('goaway', (_code, last) => {
      one.lastServed = last;
      leave();
    });
    one.on('close', leave).on('error', leave);
    return one;
  };
  const once = () =>
    new Promise((resolve, reject) => {
      const over = (session ??= open());
      const stream = over.request({ ':path': '/' });
      let [status, body] = [0, ''];
      stream.on('response', (head) => { status = head[':status']; });
      stream.setEncoding('utf8').on('data', (text) => { body += text; });
      stream.once('error', (error) => reject(Object.assign(error, { unsent: unsent(stream, over) }))).once('end', () => resolve({ status, body }));
      limit(stream);
    });
  return () => once().catch((error) => (error.unsent ? once() : Promise.reject(error)));
}

/**
 * Whether Node itself refused the stream: it writes a request after it has read once more, and if a GOAWAY comes then, the request stays unsent,
 * also where the GOAWAY allows its stream. A server that refuses has told of a last stream before this one, or of none.
 */
const unsent = (stream, { lastServed }) => stream.rstCode === http2.constants.NGHTTP2_REFUSED_STREAM && lastServed >= stream.id;
