// Load for a pod, given to `node --input-type=module -e` there: short requests (a connection each) and long connections (a request now and
// then on each), to every URL of TARGETS. Prints its counts so far as one line of JSON every half second, and a line for each failure.
import http from 'node:http';
import { limitRun } from './run-limit.mjs';

const EVERY_MS = Number(process.env.EVERY_MS ?? 50);
const LONG = Number(process.env.LONG ?? 3);
const LONG_EVERY_MS = 500;
// A request that takes longer than this is one that was lost: nobody waits for it any more.
const PATIENCE_MS = 10_000;

const tallies = {};
for (const url of process.env.TARGETS.split(',')) {
  const tally = { sent: 0, lost: 0, longSent: 0, cut: 0, renewed: 0 };
  tallies[new URL(url).hostname] = tally;
  const failed = (kind, error) => console.log(`${new Date().toISOString()} ${kind} ${url} ${error}`);
  setInterval(() => {
    tally.sent++;
    get(url, false).catch((error) => {
      tally.lost++;
      failed('lost', error);
    });
  }, EVERY_MS);
  for (let i = 0; i < LONG; i++) void keepAsking(url, tally, failed);
}
setInterval(() => console.log(JSON.stringify(tallies)), 500);

/** One connection for as long as it lives. Ended in the middle of a request it is cut, ended between two of them renewed. */
async function keepAsking(url, tally, failed) {
  for (;;) {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    try {
      for (let first = true; ; first = false) {
        tally.longSent++;
        if (!(await get(url, agent)) && !first) tally.renewed++;
        await pause();
      }
    } catch (error) {
      tally.cut++;
      failed('cut', error);
    }
    agent.destroy();
    await pause();
  }
}

const pause = () => new Promise((resolve) => setTimeout(resolve, LONG_EVERY_MS));

/** @returns whether it went over a connection that was there */
function get(url, agent) {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { agent }, (response) => {
      response.resume().once('error', reject).once('end', () => {
        if (response.statusCode === 200) resolve(request.reusedSocket);
        else reject(new Error(`status ${response.statusCode}`));
      });
    });
    limitRun(request.once('error', reject), PATIENCE_MS);
  });
}
