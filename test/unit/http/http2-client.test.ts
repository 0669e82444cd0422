/** Our HTTP/2 client against frames written by hand: what a response must be, what was surely not handled, when a connection is lost or full. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProxyError } from '../../../common/base/errors.ts';
import { goawayFrame, rstStreamFrame } from '../../../common/codec/http2/frames.ts';
import { echo, GivenBody, send } from '../../support/http-ends.ts';
import { connectedPeer, data, type Field, GET, servedPeer } from '../../support/http2-peer.ts';
import { settle } from '../../support/tunnels.ts';

test('a request is sent with its pseudo-headers first, and asks for trailers', async () => {
  const { peer, connection } = await connectedPeer();
  send(connection, { path: '/a', fields: ['x', 'y', 'connection', 'close', 'host', 'evil'] });
  send(connection, { method: 'POST', bodyBytes: 2 }, new GivenBody(['hi']));
  assert.deepEqual(await peer.take(), [
    'headers 1: :method=GET :scheme=http :authority=orders.shop:8080 :path=/a te=trailers x=y end',
    'headers 3: :method=POST :scheme=http :authority=orders.shop:8080 :path=/ te=trailers content-length=2',
    'data 3 of 2: 6869 padding 0 end',
  ]);
});

test('informational responses, the response, its body and its trailers', async () => {
  const { peer, connection } = await connectedPeer();
  const sent = send(connection);
  await peer.take();
  await peer.send(
    peer.headers(
      1,
      [
        [':status', '103'],
        ['link', 'a'],
      ],
      false,
    ),
    peer.headers(
      1,
      [
        [':status', '200'],
        ['x', 'y'],
      ],
      false,
    ),
    data(1, 'abc'),
    peer.headers(1, [['grpc-status', '0']], true),
  );
  assert.deepEqual(
    sent.informational.map(({ status }) => status),
    [103],
  );
  assert.deepEqual(sent.response, { status: 200, fields: ['x', 'y'], bodyBytes: undefined });
  const whole = await sent.body.whole;
  assert.equal(whole.body.toString(), 'abc');
  assert.deepEqual(whole.trailers, ['grpc-status', '0']);
  assert.equal(connection.openExchanges, 0);
});

test('malformed responses fail the request and reset the stream', async () => {
  const heads: [Field[], boolean][] = [
    [[['x', 'y']], true],
    [[[':status', '20']], true],
    [[[':status', '101']], false],
    [[[':status', '103']], true],
    [
      [
        [':status', '200'],
        [':path', '/'],
      ],
      true,
    ],
    [
      [
        [':status', '200'],
        ['connection', 'close'],
      ],
      true,
    ],
    [
      [
        [':status', '200'],
        ['X', 'y'],
      ],
      true,
    ],
    [
      [
        [':status', '200'],
        ['content-length', '5'],
      ],
      true,
    ],
  ];
  for (const [fields, end] of heads) {
    const { peer, connection } = await connectedPeer();
    const sent = send(connection);
    await peer.take();
    assert.deepEqual(await peer.send(peer.headers(1, fields, end)), ['rst 1 1']);
    assert.equal(sent.failure?.error.code, 'HTTP2_FAILURE');
    assert.ok(connection.usable);
  }
});

test('a refused stream and streams above a GOAWAY were certainly not handled; others may have been', async () => {
  const { peer, connection, pipe } = await connectedPeer();
  const sent = [send(connection), send(connection), send(connection), send(connection)];
  await peer.take();
  await peer.send(rstStreamFrame(1, 7));
  assert.equal(sent[0]?.failure?.unsent, true);
  await peer.send(rstStreamFrame(3, 2));
  assert.equal(sent[1]?.failure?.unsent, false);
  await peer.send(goawayFrame(5, 0));
  assert.equal(sent[3]?.failure?.unsent, true);
  assert.equal(sent[2]?.failure, undefined);
  assert.ok(!connection.usable);
  await peer.send(peer.headers(5, [[':status', '204']], true));
  assert.equal(sent[2]?.response?.status, 204);
  assert.ok(pipe.outputEnded);
});

test('a connection that is lost fails its requests, and those that had not left are unsent', async () => {
  const { peer, connection, pipe, ended, clock } = await connectedPeer();
  const sent = send(connection);
  await peer.take();
  const late = send(connection);
  pipe.lose(new ProxyError('CONNECTION_LOST', 'reset'));
  assert.equal(sent.failure?.unsent, false);
  assert.equal(late.failure?.unsent, true);
  assert.equal(ended.length, 1);
  assert.equal(clock.pending, 0);
});

test('no more requests at once than the server allows', async () => {
  const { peer, connection } = await connectedPeer([[3, 2]]);
  send(connection);
  send(connection);
  assert.ok(!connection.usable);
  const third = send(connection);
  await peer.send(peer.headers(1, [[':status', '204']], true));
  assert.equal(third.failure?.unsent, true);
  assert.ok(connection.usable);
});

test('cancelling resets the stream, and an early response ends the request', async () => {
  const { peer, connection } = await connectedPeer();
  const first = send(connection);
  await peer.send(peer.headers(1, [[':status', '200']], false), data(1, 'abc'));
  first.cancelResponse();
  assert.deepEqual(await peer.take(), ['rst 1 8']);
  assert.equal(first.body.error, undefined);
  const source = new GivenBody([]);
  source.into = () => {};
  const second = send(connection, { method: 'POST', bodyBytes: undefined }, source);
  await peer.take();
  assert.deepEqual(await peer.send(peer.headers(3, [[':status', '413']], true)), ['rst 3 8']);
  assert.equal(second.response?.status, 413);
  assert.ok(second.body.ended && source.cancelled);
});

test('WebSocket over HTTP/2 is asked for and answered as over HTTP/1.1', async () => {
  const { peer } = await servedPeer(echo);
  const fields: Field[] = [[':method', 'CONNECT'], [':protocol', 'websocket'], ...GET.slice(1)];
  assert.deepEqual(await peer.send(peer.headers(1, fields, false), data(1, 'frames')), [
    'headers 1: :status=200 x-request=GET /',
    'data 1 of 6: 6672616d6573 padding 0',
  ]);
  assert.deepEqual(await peer.send(data(1, '', true)), ['data 1 of 0:  padding 0 end']);

  const client = await connectedPeer([[8, 1]]);
  const source = new GivenBody([]);
  source.into = () => {};
  const sent = send(client.connection, { upgrade: 'websocket', fields: ['sec-websocket-key', 'k'] }, source);
  assert.deepEqual(await client.peer.take(), [
    'headers 1: :method=CONNECT :scheme=http :authority=orders.shop:8080 :path=/ :protocol=websocket te=trailers',
  ]);
  await client.peer.send(client.peer.headers(1, [[':status', '200']], false), data(1, 'hello'));
  assert.equal(sent.response?.status, 101);
  assert.equal(sent.body.text, 'hello');
  const without8 = await connectedPeer();
  const refused = send(without8.connection, { upgrade: 'websocket' });
  await settle(1);
  assert.equal(refused.failure?.unsent, true);
});
