/** DNS of a pod: redirected to ztunnel, which answers for the mesh's services. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withoutNamespaces } from '../support/netns.ts';
import { makePair, NAMESPACE, type Pair, SERVICE_VIP } from '../support/pair.ts';
import { get, startShared } from '../support/pair-programs.ts';
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
