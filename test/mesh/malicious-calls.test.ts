/**
 * Whoever calls the ports that ztunnel listens on, from wherever, gets nothing of it: the matrix that Istio's ztunnel is tested with
 * (tests/namespaced.rs, malicious_calls_inpod). C: the connection itself fails. R: it is accepted and brings no answer. H: HTTP 400 or 404.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeInPods, startPlayground, type TestPlayground, withoutPlayground } from '../support/playground.ts';

const PORTS = [15001, 15006, 15008, 15080, 15000, 15020, 15021];

const MANIFEST = `
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: Namespace
metadata: { name: legacy }
---
apiVersion: v1
kind: Pod
metadata: { name: captured, namespace: shop }
spec: { nodeName: node1, containers: [{ name: echo, image: warren/echo, args: ["--port=8080"] }] }
---
apiVersion: v1
kind: Pod
metadata: { name: uncaptured, namespace: legacy }
spec: { nodeName: node1, containers: [{ name: echo, image: warren/echo, args: ["--port=8080"] }] }
`;

// Says what one HTTP/1.1 request without a path that exists brings: C, R, or H with its status; anything else is shown as it is.
const PROBE = `
const net = require('node:net');
const [host, port] = [process.argv[1], Number(process.argv[2])];
let connected = false, text = '';
const socket = net.connect({ host, port });
const done = (verdict) => { console.log(verdict); process.exit(0); };
const judge = () => done(!connected ? 'C' : text === '' ? 'R' : /^HTTP\\/1.1 4/.test(text) ? 'H' : 'answered ' + text.slice(0, 60));
socket.on('connect', () => { connected = true; socket.write('PUT /nowhere HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: 0\\r\\n\\r\\n'); });
socket.on('data', (chunk) => { text += chunk; judge(); });
// A reset may overtake the news that the connection stood.
socket.on('error', ({ code }) => { connected ||= code === 'ECONNRESET'; judge(); });
socket.on('close', judge);
// Where nothing at all happens; each expected verdict comes at once.
setTimeout(() => done('silence'), 20_000);
`;

async function probe(cluster: TestPlayground, namespace: string, pod: string, host: string): Promise<string> {
  const verdicts = await Promise.all(
    PORTS.map(async (port) => (await cluster.exec(namespace, pod, nodeInPods, '-e', PROBE, host, String(port))).stdout.trim()),
  );
  return verdicts.join(' ');
}

test('calls to ports of ztunnel bring nothing, wherever they come from', { skip: withoutPlayground, timeout: 240_000 }, async (t) => {
  const cluster = await startPlayground(t, { mesh: true });
  await cluster.apply(MANIFEST);
  await cluster.podsReady('shop');
  await cluster.podsReady('legacy');
  const ipOf = async (namespace: string, ...selector: string[]): Promise<string> =>
    cluster.kubectl('get', 'pod', '-n', namespace, ...selector, '-o', 'jsonpath={.items[0].status.podIP}');
  const ztunnel = await ipOf('istio-system', '-l', 'app=ztunnel', '--field-selector', 'spec.nodeName=node1');
  const captured = await ipOf('shop');

  //                                                            15001 15006 15008 15080 15000 15020 15021
  assert.equal(await probe(cluster, 'shop', 'captured', ztunnel), 'R R R R R H H', 'captured pod → ztunnel');
  assert.equal(await probe(cluster, 'shop', 'captured', captured), 'R R R C C C C', 'captured pod → its own address');
  assert.equal(await probe(cluster, 'shop', 'captured', '127.0.0.1'), 'R R R C C C C', 'captured pod → loopback');
  assert.equal(await probe(cluster, 'legacy', 'uncaptured', ztunnel), 'C C R C C H H', 'uncaptured pod → ztunnel');
  assert.equal(await probe(cluster, 'legacy', 'uncaptured', captured), 'R R R R R R R', 'uncaptured pod → captured pod');
});
