/**
 * A connection that reached a pod in the clear and that redirection brought to port 15006: policies decide without an identity, then it
 * goes on to the application from its original source address (Istio's ztunnel, src/proxy/inbound_passthrough.rs).
 */
import { formatSocketAddress, type SocketAddress } from '../../common/base/address.ts';
import { ProxyError } from '../../common/base/errors.ts';
import { inboundService } from '../../common/decision/inbound.ts';
import { OWN_PORTS } from '../../common/decision/ports.ts';
import { type AppSocket, turnToBegin } from '../../common/hbone/app-socket.ts';
import { relay } from '../../common/hbone/relay.ts';
import { originalDestination } from '../../common/linux/sockets.ts';
import type { LiveConnection } from '../worker/connections.ts';
import type { PodContext } from '../worker/context.ts';
import { dialApplication } from '../worker/dial.ts';
import type { ConnectionRecord } from '../worker/telemetry.ts';
import { enforce, recheck } from './enforce.ts';

/** Never rejects for what a peer or the network did; that is in the log. */
export async function servePlaintext(pod: PodContext, app: AppSocket): Promise<void> {
  const { ends } = app;
  if (!ends) {
    app.destroy();
    return;
  }
  const { telemetry, connections } = pod.parts;
  const destination = originalDestination(app.fd) ?? ends.local;
  const live = connections.add(pod.spec.uid);
  telemetry.socketOpened('inbound');
  try {
    await carry(pod, live, app, ends.remote, destination);
  } finally {
    connections.remove(live);
    telemetry.socketClosed('inbound');
  }
}

async function carry(
  pod: PodContext,
  live: LiveConnection,
  app: AppSocket,
  source: SocketAddress,
  destination: SocketAddress,
): Promise<void> {
  const { telemetry, view, settings, randomHex } = pod.parts;
  const id = randomHex(32);
  let record: ConnectionRecord | undefined;
  try {
    if (OWN_PORTS.has(destination.port)) throw new ProxyError('SELF_CALL', 'attempted recursive call to ourselves');
    await turnToBegin(pod.lane);
    const local = await pod.local.wait(live.signal);
    const subject = { source, destination, identity: undefined };
    record = telemetry.opened({
      direction: 'inbound',
      id,
      source,
      sourceWorkload: view.workloadByAddress(settings.network, source.ip),
      sourceIdentity: undefined,
      destination,
      destinationWorkload: local,
      destinationIdentity: undefined,
      service: inboundService(view, local, destination.port),
      mutualTls: false,
      target: destination,
    });
    // Described before it is judged: a policy that changes in between must find this connection.
    live.tracked = {
      uid: pod.spec.uid,
      direction: 'inbound',
      src: formatSocketAddress(source),
      originalDst: null,
      actualDst: formatSocketAddress(destination),
      protocol: 'TCP',
      recheck: () => recheck(pod, subject),
    };
    record.policy = enforce(pod, local, subject);
    const upstream = await dialApplication(pod, { to: destination, own: true, source, signal: live.cancelled });
    const running = relay(app, upstream);
    record.running(running);
    live.relaying(running);
    const { error } = await running.done;
    record.ended(error);
  } catch (reason) {
    const error = ProxyError.from(reason, 'CONNECTION_LOST', 'connection failed');
    if (record) record.ended(error);
    else telemetry.failedEarly({ direction: 'inbound', source, destination, error, id });
    app.destroy(error);
  }
}
