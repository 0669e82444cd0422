import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { decode, encode, type OptAnswer, type Packet, RECURSION_DESIRED } from 'dns-packet';
import fc from 'fast-check';
import { systemClock } from '../../../common/base/clock.ts';
import { DnsForwarder } from '../../../ztunnel/dns/forward.ts';
import { type DnsQuery, encodeAnswer, fitUdp, parseQuery } from '../../../ztunnel/dns/message.ts';
import { withWildcards } from '../../../ztunnel/dns/names.ts';
import { DnsFramer, framed } from '../../../ztunnel/dns/tcp-framing.ts';
import { parseResolvConf } from '../../../ztunnel/supervisor/nameservers.ts';
import type { PodContext } from '../../../ztunnel/worker/context.ts';

const question = (name: string, type: 'A' | 'AAAA' | 'TXT' = 'A', more: Packet = {}): Buffer =>
  encode({ type: 'query', id: 4660, flags: 256, questions: [{ type, name }], ...more });

function queryOf(raw: Buffer): DnsQuery {
  const parsed = parseQuery(raw);
  assert.ok(parsed && 'query' in parsed);
  return parsed.query;
}

const rcodeOf = (raw: Buffer): number => raw.readUInt16BE(2) & 15;

test('an answer has the id and the question of its query, RA, AA for what is our own, and 30 seconds to live', () => {
  const answer = encodeAnswer(queryOf(question('server.shop')), {
    rcode: 'NOERROR',
    authoritative: true,
    alias: 'server',
    addresses: ['10.0.0.1'],
  });
  const packet = decode(answer);
  assert.equal(packet.id, 4660);
  assert.deepEqual(packet.questions?.[0]?.name, 'server.shop');
  assert.equal(answer.readUInt16BE(2).toString(16), (0x8000 | 0x400 | 0x100 | 0x80).toString(16));
  assert.deepEqual(
    packet.answers?.map((record) => [record.type, record.name, 'data' in record && record.data, 'ttl' in record && record.ttl]),
    [
      ['CNAME', 'server.shop', 'server', 30],
      ['A', 'server', '10.0.0.1', 30],
    ],
  );
});

test('EDNS is answered with EDNS and the DO bit as it came', () => {
  const opt: OptAnswer = {
    type: 'OPT',
    name: '.',
    udpPayloadSize: 4096,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: 0x8000,
    flag_do: true,
    options: [],
  };
  const query = queryOf(question('a', 'A', { additionals: [opt] }));
  assert.equal(query.maxUdpBytes, 4096);
  const echoed = decode(encodeAnswer(query, { rcode: 'NOERROR', authoritative: true })).additionals?.[0];
  assert.equal(echoed?.type === 'OPT' && echoed.flag_do, true);
  assert.deepEqual(decode(encodeAnswer(queryOf(question('a')), { rcode: 'NOERROR', authoritative: true })).additionals, []);
});

test('an answer that is too long for UDP is cut to a header that sends the asker to TCP', () => {
  const query = queryOf(question('many'));
  const long = encodeAnswer(query, {
    rcode: 'NOERROR',
    authoritative: true,
    addresses: Array.from({ length: 100 }, (_, i) => `10.0.0.${i}`),
  });
  const cut = fitUdp(query, long);
  assert.ok(cut.length < 512);
  assert.notEqual(cut.readUInt16BE(2) & 0x200, 0);
  assert.deepEqual(decode(cut).answers, []);
  const short = encodeAnswer(query, { rcode: 'NOERROR', authoritative: true, addresses: ['10.0.0.1'] });
  assert.equal(fitUdp(query, short), short);
});

test('responses and broken messages are FORMERR, other operations NOTIMP, and fragments of a header nothing', () => {
  const refusal = (raw: Buffer): number | undefined => {
    const parsed = parseQuery(raw);
    return parsed && 'refusal' in parsed ? rcodeOf(parsed.refusal) : undefined;
  };
  const response = question('a');
  response.writeUInt16BE(0x8000, 2);
  assert.equal(refusal(response), 1);
  const update = question('a');
  update.writeUInt16BE(5 << 11, 2);
  assert.equal(refusal(update), 4);
  assert.equal(refusal(question('a').subarray(0, 14)), 1);
  assert.equal(refusal(encode({ type: 'query', id: 1, questions: [] })), 1);
  assert.equal(parseQuery(Buffer.alloc(11)), undefined);
});

test('no bytes make parsing throw', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => void parseQuery(Buffer.from(bytes))));
});

test('wildcards go from the most to the least specific', () => {
  assert.deepEqual(withWildcards('a.b.c'), ['a.b.c', '*.b.c', '*.c']);
  assert.deepEqual(withWildcards('svc1'), ['svc1']);
});

test('messages over TCP are found at every chunk size', () => {
  const messages = [Buffer.from('one'), Buffer.alloc(0), Buffer.from('three')];
  const bytes = Buffer.concat(messages.map(framed));
  for (let size = 1; size <= bytes.length; size++) {
    const found: string[] = [];
    const framer = new DnsFramer((message) => found.push(message.toString()));
    for (let at = 0; at < bytes.length; at += size) framer.push(bytes.subarray(at, at + size));
    assert.deepEqual(found, ['one', '', 'three']);
    assert.equal(framer.pending, 0);
  }
  assert.throws(() => framed(Buffer.alloc(0x10000)), RangeError);
});

test('nameservers are the first three addresses of resolv.conf', () => {
  assert.deepEqual(
    parseResolvConf(
      'search a b\nnameserver 10.96.0.10\n# nameserver 1.1.1.1\nnameserver fd00::0a\nnameserver nonsense\nnameserver 1.0.0.1\nnameserver 8.8.8.8\n',
    ),
    [
      { ip: '10.96.0.10', port: 53 },
      { ip: 'fd00::a', port: 53 },
      { ip: '1.0.0.1', port: 53 },
    ],
  );
  assert.deepEqual(parseResolvConf(''), []);
});

/** A nameserver on loopback, UDP and TCP on one port. */
async function nameserver(t: TestContext, answer: (query: Buffer) => Buffer[]): Promise<{ ip: string; port: number; asked: Buffer[] }> {
  const asked: Buffer[] = [];
  const tcp = createServer((socket) => {
    const framer = new DnsFramer((query) => {
      asked.push(Buffer.from(query));
      for (const one of answer(query)) socket.write(framed(one));
    });
    socket.on('data', (chunk: Buffer) => framer.push(chunk));
  }).listen(0, '127.0.0.1');
  await once(tcp, 'listening');
  const address = tcp.address();
  assert.ok(typeof address === 'object' && address);
  const udp = createSocket('udp4');
  udp.on('message', (query, from) => {
    asked.push(query);
    for (const one of answer(query)) udp.send(one, from.port, from.address);
  });
  udp.bind(address.port, '127.0.0.1');
  await once(udp, 'listening');
  t.after(() => {
    udp.close();
    tcp.close();
  });
  return { ip: '127.0.0.1', port: address.port, asked };
}

// As much of a pod as a forwarder looks at.
const pod = { netns: undefined, mark: undefined, parts: { clock: systemClock } } as unknown as PodContext;

const respond = (query: Buffer, change: (answer: Buffer) => void = () => undefined): Buffer => {
  const answer = Buffer.from(query);
  answer.writeUInt16BE(0x8183, 2);
  change(answer);
  return answer;
};

test('a query goes on under another id and its answer comes back under its own, rcode and all', async (t) => {
  const server = await nameserver(t, (query) => [respond(query)]);
  const forwarder = new DnsForwarder(pod, [server]);
  const ids = new Set<number>();
  for (let i = 0; i < 4; i++) {
    const answer = await forwarder.ask(question('www.example', 'TXT'), 'udp');
    assert.equal(answer.readUInt16BE(0), 4660);
    assert.equal(rcodeOf(answer), 3);
    ids.add(server.asked[i]?.readUInt16BE(0) ?? 0);
  }
  assert.ok(ids.size > 1);
  assert.equal(rcodeOf(await forwarder.ask(question('www.example'), 'tcp')), 3);
});

test('an answer comes back byte for byte, however large and whatever is in it, over both transports', async (t) => {
  const query = encode({
    type: 'query',
    id: 9,
    flags: RECURSION_DESIRED,
    questions: [{ type: 'TXT', name: 'large.example', class: 'IN' }],
    additionals: [
      { type: 'OPT', name: '.', udpPayloadSize: 4096, extendedRcode: 0, ednsVersion: 0, flags: 0, flag_do: false, options: [] },
    ],
  });
  const large = Buffer.concat([respond(query), Buffer.alloc(3000, 0xa5)]);
  const server = await nameserver(t, (asked) => [Buffer.concat([asked.subarray(0, 2), large.subarray(2)])]);
  for (const protocol of ['udp', 'tcp'] as const) {
    const answer = await new DnsForwarder(pod, [server]).ask(query, protocol);
    assert.equal(Buffer.compare(answer, large), 0, protocol);
    assert.equal(Buffer.compare(server.asked.at(-1)?.subarray(2) ?? Buffer.alloc(0), query.subarray(2)), 0, 'the question as well');
  }
});

test('answers with a wrong id or to another question are not believed', async (t) => {
  const server = await nameserver(t, (query) => [
    respond(query, (answer) => answer.writeUInt16BE((answer.readUInt16BE(0) + 1) & 0xffff, 0)),
    respond(query, (answer) => answer.write('x', 13)),
    respond(query, (answer) => answer.writeUInt16BE(0x8180, 2)),
  ]);
  assert.equal(rcodeOf(await new DnsForwarder(pod, [server]).ask(question('www.example'), 'udp')), 0);
});

test('the next nameserver is asked where one does not answer, and without any it is an error', async (t) => {
  const server = await nameserver(t, (query) => [respond(query)]);
  const forwarder = new DnsForwarder(pod, [{ ip: '127.0.0.1', port: 1 }, server]);
  assert.equal(rcodeOf(await forwarder.ask(question('www.example'), 'tcp')), 3);
  await assert.rejects(new DnsForwarder(pod, []).ask(question('a'), 'udp'), /no nameserver is configured/);
});
