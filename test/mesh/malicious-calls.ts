/**
 * Whoever calls the ports that ztunnel listens on, from wherever, gets nothing of it: the matrix that Istio's ztunnel is tested with
 * (tests/namespaced.rs, malicious_calls_inpod); run by capture.test.ts. C: the connection itself fails. R: it is accepted and brings no answer. H: HTTP 400 or 404.
 */
import assert from 'node:assert/strict';
import { nodeInPods, type TestPlayground } from '../support/playground.ts';

const PORTS = [15001, 15006, 15008, 15080, 15000, 15020, 15021];

// Says of each port what one HTTP/1.1 request without a path that exists brings: C, R, or H with its status; anything else is shown as it is.
const PROBE = `
const net = require('node:net');
const [host, ports] = [process.argv[1], process.argv[2].split(',').map(Number)];
const probe = (port) => new Promise((resolve) => {
  let connected = false, text = '';
  const socket = net.connect({ host, port });
  const done = (verdict) => { socket.destroy(); resolve(verdict); };
  const judge = () => done(!connected ? 'C' : text === '' ? 'R' : /^HTTP\\/1.1 4/.test(text) ? 'H' : 'answered ' + text.slice(0, 60));
  socket.on('connect', () => { connected = true; socket.write('PUT /nowhere HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: 0\\r\\n\\r\\n'); });
  socket.on('data', (chunk) => { text += chunk; judge(); });
  // A reset may overtake the news that the connection stood.
  socket.on('error', ({ code }) => { connected ||= code === 'ECONNRESET'; judge(); });
  socket.on('close', judge);
  // Where nothing at all happens; each expected verdict comes at once.
  setTimeout(() => done('silence'), 20_000);
});
Promise.all(ports.map(probe)).then((verdicts) => { console.log(verdicts.join(' ')); process.exit(0); });
`;

/** @returns the verdict of each port, asked side by side by one program in the pod */
async function probe(cluster: TestPlayground, namespace: string, pod: string, host: string): Promise<string> {
  const { stdout } = await cluster.exec(namespace, pod, nodeInPods, '-e', PROBE, host, PORTS.join());
  return stdout.trim();
}

/** On a playground with a pod `client` on node1 in two namespaces, one of the mesh and one that is not. */
export async function maliciousCalls(cluster: TestPlayground, mesh: string, plain: string): Promise<void> {
  const ipOf = async (namespace: string, ...selector: string[]): Promise<string> =>
    cluster.kubectl('get', 'pod', '-n', namespace, ...selector, '-o', 'jsonpath={.items[0].status.podIP}');
  const ztunnel = await ipOf('istio-system', '-l', 'app=ztunnel', '--field-selector', 'spec.nodeName=node1');
  const captured = await ipOf(mesh, '-l', 'app=client');

  //                                                           15001 15006 15008 15080 15000 15020 15021
  assert.equal(await probe(cluster, mesh, 'client', ztunnel), 'R R R R R H H', 'captured pod → ztunnel');
  assert.equal(await probe(cluster, mesh, 'client', captured), 'R R R C C C C', 'captured pod → its own address');
  assert.equal(await probe(cluster, mesh, 'client', '127.0.0.1'), 'R R R C C C C', 'captured pod → loopback');
  assert.equal(await probe(cluster, plain, 'client', ztunnel), 'C C R C C H H', 'uncaptured pod → ztunnel');
  assert.equal(await probe(cluster, plain, 'client', captured), 'R R R R R R R', 'uncaptured pod → captured pod');
}
