// Load for a pod, given to `node --input-type=module -e` there: clients that keep their connections, half of them over HTTP/1.1 and half over
// HTTP/2, and requests with a connection each. Every second one line of JSON says how many answers came by way of which address (the echo
// program's IP), and how many requests failed in all; each failure has a line of its own.
import http from 'node:http';
import { keptHttp2 } from './kept-http2.mjs';
import { limitRun } from './run-limit.mjs';

const [url, kept, everyMs] = [process.env.URL, Number(process.env.KEPT), Number(process.env.EVERY_MS)];
// A request that takes longer than this has failed: nobody waits for it any more.
const PATIENCE_MS = 15_000;
const totals = { sent: 0, failed: 0, fresh: 0 };
let by = {};

const counted = async (kind, ask) => {
  totals.sent++;
  try {
    const { status, body } = await ask();
    const ip = /^IP=(.*)$/m.exec(body)?.[1];
    if (status !== 200 || ip === undefined) throw new Error(`status ${status}`);
    by[ip] = (by[ip] ?? 0) + 1;
  } catch (error) {
    totals.failed++;
    console.log(`${new Date().toISOString()} failed ${kind} ${error.code ?? ''} ${error.message}`);
  }
};

const overHttp1 = (agent) => () =>
  new Promise((resolve, reject) => {
    const request = http.get(url, { agent }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text) => { body += text; });
      response.once('error', reject).once('end', () => resolve({ status: response.statusCode, body }));
    });
    limitRun(request.once('error', reject), PATIENCE_MS);
  });

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
async function keepAsking(kind, ask) {
  await pause(Math.random() * everyMs);
  for (;;) {
    await counted(kind, ask);
    await pause(everyMs);
  }
}
for (let i = 0; i < kept; i++) {
  if (i % 2 === 0) void keepAsking('http1', overHttp1(new http.Agent({ keepAlive: true, maxSockets: 1 })));
  else void keepAsking('http2', keptHttp2(url, () => totals.fresh++, (stream) => limitRun(stream, PATIENCE_MS)));
}
void keepAsking('new', overHttp1(false));
setInterval(() => {
  console.log(JSON.stringify({ at: Date.now(), by, ...totals }));
  by = {};
}, 1000);
