/**
 * h2spec against ztunnel's HBONE listener, through a relay that adds the client's certificate, and against a waypoint's HTTP/2. The tunnels'
 * server takes CONNECT and nothing else, so requests of h2spec are answered 400 there; that is an answer, and everything about frames, states
 * and header compression holds as for any other.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { goTool } from '../support/go-tools.ts';
import { makeNetns, type TestNetns, withoutNamespaces } from '../support/netns.ts';
import { dedicatedEnv, makePair, NAMESPACE } from '../support/pair.ts';
import { startPlainWaypoint } from '../support/plain-waypoint.ts';
import { startProgram } from '../support/programs.ts';

const RELAY_PORT = 18_080;

/** What h2spec wants and this server does not owe it. */
const NOT_OURS: readonly string[] = [
  // Both wait for a response's DATA; a refusal is header-only.
  'Sends a WINDOW_UPDATE frame on half-closed (remote) stream',
  'Sends a PRIORITY frame on half-closed (remote) stream',
  // Requests are refused before as many are open: the limit has a test of its own.
  'Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded',
];

/** Where it is, or could be built: H2SPEC_BIN, what an earlier run has built, or the Go that is here. */
function h2spec(): string | undefined {
  const named = process.env.H2SPEC_BIN;
  return named !== undefined && existsSync(named) ? named : goTool('github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible');
}

const program = withoutNamespaces === undefined ? h2spec() : undefined;
const skip = withoutNamespaces ?? (program === undefined ? 'needs h2spec (H2SPEC_BIN), or Go to build it' : false);

test('h2spec finds nothing wrong with the HBONE listener', { skip, timeout: 300_000 }, async (t) => {
  const pair = await makePair(t, { capture: [] });
  const ztunnel = startProgram(t, pair.server.netns, 'ztunnel/main.ts', ['proxy', 'ztunnel'], {
    ...dedicatedEnv(pair, pair.server),
    // h2spec takes 20,000 bytes for more than any frame may have.
    HTTP2_FRAME_SIZE: '16384',
  });
  await ztunnel.line(/ztunnel serves/);
  const certificate = join(pair.certificates, NAMESPACE, 'client');
  const relay = startProgram(t, pair.client.netns, 'test/support/tls-relay-program.ts', [
    String(RELAY_PORT),
    pair.server.v4,
    '15008',
    certificate,
  ]);
  await relay.line(/^listening/);
  await finds(pair.client.netns, RELAY_PORT, ['generic', 'hpack', 'http2/3', 'http2/4', 'http2/5', 'http2/6', 'http2/7'], NOT_OURS);
});

test('h2spec passes on a plaintext HTTP/2 listener of the waypoint', { skip, timeout: 300_000 }, async (t) => {
  const netns = makeNetns(t);
  const app = startProgram(t, netns, '-e', [APP]);
  await app.line(/^listening/);
  await startPlainWaypoint(t, netns, [{ name: 'app', listen: 18_081, port: 8080, protocol: 'HTTP2' }]);
  await finds(netns, 18_081, [], []);
});

/** Takes what it gets, and says something: h2spec wants to see DATA. */
const APP = `
require('node:http2').createServer((request, response) => {
  request.resume().on('end', () => response.end('hello'));
}).listen(8080, '127.0.0.1', () => console.log('listening'));
`;

/** Runs these sections, all where none is named; fails with the report where something failed that was not expected. */
async function finds(netns: TestNetns, port: number, sections: readonly string[], expected: readonly string[]): Promise<void> {
  const argv = [`--net=${netns.path}`, '--', program ?? '', '-h', '127.0.0.1', '-p', String(port), '-o', '5', ...sections];
  const output = await new Promise<string>((resolve) => {
    execFile('nsenter', argv, { timeout: 280_000, maxBuffer: 16 << 20 }, (_error, stdout, stderr) => resolve(stdout + stderr));
  });
  assert.match(output, /\d+ tests, \d+ passed/, output);
  const report = output.slice(output.indexOf('Failures:'));
  const failed = [...report.matchAll(/× \d+: (.+)/g)].map(([, name = '']) => name.trim()).filter((name) => !expected.includes(name));
  assert.deepEqual(output.includes('Failures:') ? failed : [], [], report);
}
