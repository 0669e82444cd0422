// For a pod: asks every 50 ms, each time over a connection of its own, for so many seconds or until it is told to stop. One line for each answer that
// is not what it should be, and one at the end.
import http from 'node:http';
import { limitRun } from './run-limit.mjs';

const [url, seconds] = process.argv.slice(1);
const PATIENCE_MS = 5000;
const pause = () => new Promise((resolve) => setTimeout(resolve, 50));
let asked = 0;
let lost = 0;
let on = true;
process.on('SIGTERM', () => { on = false; });

const ask = () =>
  new Promise((resolve, reject) => {
    const request = http.get(url, { agent: false }, (response) => {
      response.resume().once('error', reject).once('end', () => {
        if (response.statusCode === 200) resolve();
        else reject(new Error(`status ${response.statusCode}`));
      });
    });
    limitRun(request.once('error', reject), PATIENCE_MS);
  });

const end = Date.now() + Number(seconds) * 1000;
while (on && Date.now() < end) {
  await ask().catch((error) => {
    lost++;
    console.log(`${new Date().toISOString()} ${error.message}`);
  });
  asked++;
  await pause();
}
console.log(`asked ${asked}, lost ${lost}`);
