/** DNS of a pod: redirected to ztunnel, which answers for the mesh's services. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withoutNamespaces } from '../support/netns.ts';
import { makePair, NAMESPACE, type Pair, SERVICE_VIP } from '../support/pair.ts';
import { get, startEcho, startShared } from '../support/pair-programs.ts';
import { runScript, startProgram } from '../support/programs.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 120_000 };

/** Asks a nameserver that does not exist; what comes back is ztunnel's. */
async function resolve(
  from: Pair['client']['netns'],
  name: string,
  type: 'A' | 'AAAA',
  nameserver = '10.96.0.53',
): Promise<string[] | string> {
  const output = await runScript(
    from,
    `import { Resolver } from 'node:dns/promises';
    const resolver = new Resolver({ timeout: 15_000, tries: 1 });
    resolver.setServers([${JSON.stringify(nameserver)}]);
    console.log(JSON.stringify(await resolver.resolve(${JSON.stringify(name)}, ${JSON.stringify(type)}).catch((error) => error.code)));`,
  );
  return JSON.parse(output);
}

test('a service’s name resolves to its address, whichever nameserver the pod asks, by its short names as well', options, async (t) => {
  const pair = await makePair(t, { redirectDns: true });
  const { home } = await startShared(t, pair);
  const { netns } = pair.client;
  assert.deepEqual(await resolve(netns, `server.${NAMESPACE}.svc.cluster.local`, 'A'), [SERVICE_VIP]);
  assert.deepEqual(await resolve(netns, 'server', 'A'), [SERVICE_VIP]);
  assert.deepEqual(await resolve(netns, `server.${NAMESPACE}.${NAMESPACE}.svc.cluster.local`, 'A'), [SERVICE_VIP]);
  assert.equal(await resolve(netns, `server.${NAMESPACE}.svc.cluster.local`, 'AAAA'), 'ENODATA');
  const { body } = await get(home, 'http://127.0.0.1:15020/metrics');
  assert.match(
    body,
    /^istio_dns_requests_total\{request_query_type="a",request_protocol="udp",source_canonical_service="client",source_canonical_revision="v1"\} [34]$/m,
  );
});

/** What comes back through the pod's SOCKS server: its answer in hex, then what the destination sent. */
async function bySocks(from: Pair['client']['netns'], request: string, text: string): Promise<{ answer: string; received: string }> {
  const output = await runScript(
    from,
    `import net from 'node:net';
    const socket = net.connect(15080, '127.0.0.1', () => socket.write(Buffer.from('050100${request}', 'hex')));
    let seen = Buffer.alloc(0);
    socket.on('data', (data) => {
      if (seen.length < 12 && seen.length + data.length >= 12) socket.end(${JSON.stringify(text)});
      seen = Buffer.concat([seen, data]);
    });
    socket.on('error', () => undefined);
    socket.on('close', () => console.log(JSON.stringify({ answer: seen.subarray(0, 12).toString('hex'), received: seen.subarray(12).toString() })));`,
  );
  return JSON.parse(output);
}

test('a SOCKS client names its destination by hostname or by address, and is carried like any other', options, async (t) => {
  const pair = await makePair(t);
  const { ztunnel } = await startShared(t, pair, { UNSTABLE_ENABLE_SOCKS5: 'true' });
  await startEcho(t, pair.server.netns);
  const { netns } = pair.client;
  const name = `server.${NAMESPACE}.svc.cluster.local`;
  const byName = `05010003${name.length.toString(16).padStart(2, '0')}${Buffer.from(name).toString('hex')}0050`;
  const done = '05000500000100000000'.padEnd(24, '0');
  assert.deepEqual(await bySocks(netns, byName, 'hello'), { answer: done, received: 'hellohello' });
  assert.match(await ztunnel.line(/connection complete.*direction="outbound"/), /dst.hbone_addr=\S+:8080 dst.service="server.shop/);
  const [a, b, c, d] = pair.server.v4.split('.').map((part) => Number(part).toString(16).padStart(2, '0'));
  assert.deepEqual(await bySocks(netns, `05010001${a}${b}${c}${d}1f90`, 'hello'), { answer: done, received: 'hellohello' });
  assert.equal((await bySocks(netns, '050100017f0000013ae8', 'hello')).received, '');
  assert.match(await ztunnel.line(/SELF_CALL/), /attempted recursive call to ourselves/);
  assert.equal((await bySocks(netns, '05020001000000000050', 'hello')).answer, '050005070001'.padEnd(24, '0'));
});

test('without the DNS proxy nothing listens for it', options, async (t) => {
  const pair = await makePair(t);
  await startShared(t, pair, { ISTIO_META_DNS_CAPTURE: 'false' });
  assert.doesNotMatch(pair.client.netns.exec('ss', '-Hlntu'), /:15053\b/);
  assert.match(pair.client.netns.exec('ss', '-Hlntu'), /:15001\b/);
});

test('while one ztunnel hands over to another no question is lost', options, async (t) => {
  const pair = await makePair(t, { redirectDns: true });
  const first = await startShared(t, pair);
  const asking = startProgram(t, pair.client.netns, '--input-type=module', [
    '-e',
    `import { Resolver } from 'node:dns/promises';
    let asked = 0, lost = 0;
    process.on('SIGTERM', () => { console.log('asked', asked, 'lost', lost); process.exit(); });
    console.log('started');
    for (;;) {
      const resolver = new Resolver({ timeout: 15_000, tries: 1 });
      resolver.setServers(['10.96.0.53']);
      asked++;
      await resolver.resolve4('server').catch(() => { lost++; });
      await new Promise((resolve) => setTimeout(resolve, 2));
    }`,
  ]);
  await asking.line(/^started/);
  await startShared(t, pair);
  first.ztunnel.kill();
  assert.equal(await first.ztunnel.ended, 0);
  await new Promise((resolve) => setTimeout(resolve, 300));
  asking.kill();
  const [, asked = '', lost = ''] = /asked (\d+) lost (\d+)/.exec(await asking.line(/^asked/)) ?? [];
  assert.ok(Number(asked) > 20, `${asked} questions`);
  assert.equal(lost, '0', `of ${asked}`);
});
