/**
 * Connections to an echo server, in its parent's hand: `connection-probe.ts IP PORT`. `hold` opens one, as soon as that succeeds, and tells when it
 * stood and when it ended; `ping` sends a byte over one, again and again, until `stop`, and tells the longest wait for its echo, but for the first,
 * in which the way to the server is made. Times as in
 * push-source.ts.
 */
import net from 'node:net';

export type ProbeOrder = 'hold' | 'ping' | 'stop';

const now = (): number => Number(process.hrtime.bigint()) / 1e6;
const [ip = '', port = ''] = process.argv.slice(2);
const AGAIN_MS = 2;
const PING_MS = 1;
let pinging = false;

function hold(): void {
  const socket = net.connect(Number(port), ip);
  let open = false;
  socket.on('error', () => undefined);
  socket.on('connect', () => socket.write('x'));
  socket.on('data', () => {
    if (!open) process.send?.({ event: 'open', at: now() });
    open = true;
  });
  socket.on('close', () => {
    if (open) process.send?.({ event: 'closed', at: now() });
    else setTimeout(hold, AGAIN_MS);
  });
}

function ping(): void {
  const socket = net.connect(Number(port), ip);
  let longestMs = 0;
  let sentAt: number | undefined;
  const send = (): void => {
    socket.write('x');
  };
  let echoes = 0;
  socket.setNoDelay(true);
  socket.on('connect', send);
  socket.on('data', (bytes) => {
    // The echo comes twice over.
    echoes += bytes.length;
    if (echoes < 2) return;
    echoes = 0;
    if (sentAt !== undefined) longestMs = Math.max(longestMs, now() - sentAt);
    if (pinging)
      setTimeout(() => {
        sentAt = now();
        send();
      }, PING_MS);
    else socket.destroy();
  });
  socket.on('close', () => process.send?.({ event: 'stopped', at: now(), longestMs }));
}

process.on('message', (order: ProbeOrder) => {
  pinging = order === 'ping';
  if (order === 'hold') hold();
  else if (order === 'ping') ping();
});
process.on('disconnect', () => process.exit(0));
