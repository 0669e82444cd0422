import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { Readable } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { silentLog } from '../../../common/base/log.ts';
import { type HttpAnswer, type HttpEndpoint, type HttpRequest, serveHttp } from '../../../common/server/http-endpoint.ts';

async function serve(
  t: TestContext,
  answer: (request: HttpRequest) => HttpAnswer | Promise<HttpAnswer>,
): Promise<HttpEndpoint & { url: string }> {
  const endpoint = await serveHttp({ name: 'test', addresses: ['127.0.0.1'], port: 0, log: silentLog, answer });
  t.after(() => endpoint.close());
  return { ...endpoint, url: `http://127.0.0.1:${endpoint.port}` };
}

test('a request is answered with status, type and body', async (t) => {
  const seen: HttpRequest[] = [];
  const { url } = await serve(t, (request) => {
    seen.push(request);
    return { status: 418, body: 'short and stout', contentType: 'text/x-tea' };
  });
  const answer = await fetch(`${url}/pot?lid=on`, { method: 'POST' });
  assert.deepEqual([answer.status, answer.headers.get('content-type'), await answer.text()], [418, 'text/x-tea', 'short and stout']);
  assert.deepEqual([seen[0]?.method, seen[0]?.path, seen[0]?.query.get('lid')], ['POST', '/pot', 'on']);
});

test('a path with several slashes in front is a path, and names no host', async (t) => {
  const { port } = await serve(t, ({ path }) => ({ status: 200, body: path }));
  assert.equal(await (await fetch(`http://127.0.0.1:${port}//version`)).text(), '/version');
});

test('a handler that fails is a 500 with its message', async (t) => {
  const { url } = await serve(t, () => {
    throw new Error('out of tea');
  });
  const answer = await fetch(url);
  assert.deepEqual([answer.status, await answer.text()], [500, 'out of tea\n']);
});

test('long bodies are compressed as the client asks, short ones and uninterested clients are left alone', async (t) => {
  const { url } = await serve(t, ({ path }) => ({ status: 200, body: path === '/long' ? 'x'.repeat(5000) : 'x' }));
  const encodingOf = async (path: string, accept: string): Promise<string | null> => {
    const answer = await fetch(url + path, { headers: { 'accept-encoding': accept } });
    assert.equal((await answer.text()).length, path === '/long' ? 5000 : 1);
    return answer.headers.get('content-encoding');
  };
  assert.equal(await encodingOf('/long', 'gzip, deflate'), 'gzip');
  assert.equal(await encodingOf('/long', 'br'), 'br');
  assert.equal(await encodingOf('/long', 'gzip;q=0'), null);
  assert.equal(await encodingOf('/long', 'identity'), null);
  assert.equal(await encodingOf('/short', 'gzip'), null);
});

test('a port that is taken is an error that names endpoint and port, and nothing stays open', async (t) => {
  const { port } = await serve(t, () => ({ status: 200, body: '' }));
  await assert.rejects(
    serveHttp({ name: 'admin', addresses: ['127.0.0.1'], port, log: silentLog, answer: () => ({ status: 200, body: '' }) }),
    new RegExp(`admin: cannot listen on 127.0.0.1 port ${port}: .*EADDRINUSE`),
  );
});

test('headers that are too long are refused', async (t) => {
  const { url } = await serve(t, () => ({ status: 200, body: '' }));
  assert.equal((await fetch(url, { headers: { 'x-long': 'x'.repeat(10_000) } })).status, 431);
});

test('closing lets the request under way finish and ends idle connections', async (t) => {
  const { promise: gate, resolve: open } = Promise.withResolvers<void>();
  const { promise: arrived, resolve: arrive } = Promise.withResolvers<void>();
  const endpoint = await serve(t, async () => {
    arrive();
    await gate;
    return { status: 200, body: 'done' };
  });
  const idle = connect(endpoint.port, '127.0.0.1');
  const ended = new Promise((resolve) => idle.once('close', resolve));
  await new Promise((resolve) => idle.once('connect', resolve));
  const asking = fetch(endpoint.url, { headers: { connection: 'close' } }).then((answer) => answer.text());
  await arrived;
  const closing = endpoint.close();
  open();
  assert.equal(await asking, 'done');
  await Promise.all([closing, ended]);
});

test('a stream is sent as it comes, and ends when its client leaves or the endpoint closes', async (t) => {
  const streams: Readable[] = [];
  const endpoint = await serve(t, () => {
    const stream = new Readable({ read: () => undefined });
    streams.push(stream);
    stream.push('first\n');
    return { status: 200, body: '', stream };
  });
  const closed = (stream: Readable | undefined) => new Promise((resolve) => stream?.once('close', resolve));
  const leaving = new AbortController();
  const left = await fetch(endpoint.url, { signal: leaving.signal });
  const { value } = (await left.body?.getReader().read()) ?? {};
  assert.equal(Buffer.from(value ?? []).toString(), 'first\n', 'before the end is there');
  const gone = closed(streams[0]);
  leaving.abort();
  await gone;
  await fetch(endpoint.url);
  const ended = closed(streams[1]);
  await Promise.all([endpoint.close(), ended]);
});
