import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type Metadata, Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from '@grpc/grpc-js';
import { CaClient } from '../../../common/client/ca-client.ts';
import {
  type IstioCertificateRequest,
  type IstioCertificateResponse,
  IstioCertificateServiceService,
} from '../../../common/codec/gen/ca.ts';

type Call = ServerUnaryCall<IstioCertificateRequest, IstioCertificateResponse>;
type Answer = sendUnaryData<IstioCertificateResponse>;

async function startCa(t: TestContext, answer: (call: Call, callback: Answer) => void): Promise<CaClient> {
  const server = new Server();
  server.addService(IstioCertificateServiceService, { createCertificate: answer });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound))),
  );
  const client = new CaClient({
    endpoint: { target: `127.0.0.1:${port}`, tls: false, root: '', alternativeName: undefined, headers: { 'x-extra': 'yes' } },
    token: () => 'token',
    clusterId: 'cluster1',
  });
  t.after(() => {
    client.close();
    server.forceShutdown();
  });
  return client;
}

test('a signing request carries the CSR, its life, the identity it is for, and the caller’s token', async (t) => {
  const seen: { request: IstioCertificateRequest; metadata: Metadata }[] = [];
  const client = await startCa(t, ({ request, metadata }, callback) => {
    seen.push({ request, metadata });
    callback(null, { certChain: ['leaf', 'roots'] });
  });
  assert.deepEqual(await client.sign({ csr: 'csr', validitySeconds: 86_400, impersonate: 'spiffe://td/ns/a/sa/b' }), ['leaf', 'roots']);
  const [call] = seen;
  assert.equal(call?.request.csr, 'csr');
  assert.equal(call?.request.validityDuration, 86_400n);
  assert.deepEqual(call?.request.metadata, { ImpersonatedIdentity: 'spiffe://td/ns/a/sa/b' });
  assert.deepEqual(call?.metadata.get('authorization'), ['Bearer token']);
  assert.deepEqual(call?.metadata.get('clusterid'), ['cluster1']);
  assert.deepEqual(call?.metadata.get('x-extra'), ['yes']);
});

test('who asks for the own identity impersonates nobody', async (t) => {
  const metadata: unknown[] = [];
  const client = await startCa(t, ({ request }, callback) => {
    metadata.push(request.metadata);
    callback(null, { certChain: [] });
  });
  assert.deepEqual(await client.sign({ csr: 'csr', validitySeconds: 60, impersonate: undefined }), []);
  assert.deepEqual(metadata, [undefined]);
});

test('the CA’s refusal comes with its status and its words', async (t) => {
  const client = await startCa(t, (_call, callback) => callback({ code: 16, details: 'no pod with that account on your node' }));
  await assert.rejects(
    client.sign({ csr: 'csr', validitySeconds: 60, impersonate: undefined }),
    /UNAUTHENTICATED: no pod with that account on your node/,
  );
});
