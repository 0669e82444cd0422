/** HTTP inside tunnels: where a waypoint's connections run. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProxyError } from '../../../common/base/errors.ts';
import type { HttpClientConnection } from '../../../common/http/connections.ts';
import { connectHttp1 } from '../../../common/http/http1-client.ts';
import { serveHttp1 } from '../../../common/http/http1-server.ts';
import { connectHttp2 } from '../../../common/http/http2-client.ts';
import { serveHttp2 } from '../../../common/http/http2-server.ts';
import { defaultHttpLimits as limits, type ServerExchange } from '../../../common/http/types.ts';
import { Collector, echo, GivenBody, proxyTo, send } from '../../support/http-ends.ts';
import { pattern, settle, tunnelPair } from '../../support/tunnels.ts';

const versions = [
  { name: 'HTTP/1.1', serve: serveHttp1, connect: connectHttp1 },
  { name: 'HTTP/2', serve: serveHttp2, connect: connectHttp2 },
] as const;

/** A client whose server is at the other end of a tunnel. */
async function tunnelled({ serve, connect }: (typeof versions)[number], onExchange: (exchange: ServerExchange) => void) {
  const pair = tunnelPair();
  const { near, far } = await pair.open();
  const ends: (ProxyError | undefined)[] = [];
  const options = { limits, clock: pair.clock, onClose: (error?: ProxyError) => void ends.push(error) };
  const server = serve(far, { ...options, onExchange });
  const client: HttpClientConnection = connect(near, options);
  return { pair, server, client, ends };
}

for (const version of versions) {
  test(`${version.name} in a tunnel: bodies both ways, one request after another, and an orderly end`, async () => {
    const { pair, client, ends } = await tunnelled(version, echo);
    for (const size of [0, 1, 5000, 70_000, 3_000_000]) {
      const body = pattern(size, size);
      const pieces = Array.from({ length: Math.ceil(size / 40_000) }, (_, i) => body.subarray(i * 40_000, (i + 1) * 40_000));
      const sent = send(client, { method: 'POST', bodyBytes: undefined }, new GivenBody(pieces, ['x-sum', '1']));
      const whole = await sent.body.whole;
      assert.ok(whole.body.equals(body), `${size} bytes`);
      assert.deepEqual(whole.trailers, ['x-sum', '1']);
    }
    client.drain();
    await settle(20);
    assert.deepEqual(ends, [undefined, undefined]);
    assert.equal(pair.client.openStreams, 0);
    pair.client.destroy();
    await settle();
    await pair.clock.advance(2000);
    assert.equal(pair.clock.pending, 0);
  });

  test(`${version.name} in a tunnel: a sink that stops holds the client at the other end back`, async () => {
    const sink = new Collector();
    sink.more = false;
    const { client, pair } = await tunnelled(version, (exchange) => exchange.body.into(sink));
    const source = new GivenBody(Array.from({ length: 2000 }, () => pattern(10_000)));
    send(client, { method: 'POST', bodyBytes: undefined }, source);
    await settle(200);
    // The tunnel's window, and HTTP/2's own within it.
    assert.ok(source.sent < 6 << 20, `${source.sent} bytes were sent`);
    assert.ok(sink.bytes <= 64 << 10);
    pair.client.destroy();
    await settle();
    assert.equal(sink.error?.code, 'CONNECTION_LOST');
  });

  for (const up of versions) {
    test(`a proxy between tunnels, ${version.name} to ${up.name}: the client's cancel reaches the server, the server's abort the client`, async () => {
      const served: ServerExchange[] = [];
      const gone: string[] = [];
      const upstream = async () =>
        await tunnelled(up, (exchange) => {
          served.push(exchange);
          exchange.onClientGone((error) => gone.push(error.code));
        });
      let behind = await upstream();
      const front = async () =>
        await tunnelled(
          version,
          proxyTo(() => behind.client),
        );
      const first = await front();
      const cancelled = send(first.client);
      await settle(20);
      assert.equal(served.length, 1);
      cancelled.abort(new ProxyError('CONNECTION_LOST', 'enough'));
      await settle(30);
      assert.deepEqual(gone, ['CONNECTION_LOST']);

      behind = await upstream();
      const second = await front();
      const failing = send(second.client);
      await settle(20);
      const sink = served[1]?.respond({ status: 200, fields: [], bodyBytes: undefined }, undefined);
      sink?.data(Buffer.from('part'));
      await settle(20);
      assert.equal(failing.body.text, 'part');
      sink?.abort(new ProxyError('CONNECTION_LOST', 'a fault'));
      await settle(30);
      assert.equal(failing.body.error?.code, 'CONNECTION_LOST');
    });
  }
}
