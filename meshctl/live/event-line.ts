/** An event as one line of `meshctl tap`. */
import type { EventEnd, TrafficEvent } from '../../common/decision/traffic-event.ts';
import { shortened } from '../terminal.ts';
import { bytes, milliseconds } from './top-text.ts';

export const TAP_HEAD: readonly string[] = ['TIME', 'AT', 'FROM', 'TO', 'WHAT', 'RESULT'];
/** Of columns, the last of which takes what it needs. */
const WIDTHS = [12, 3, 18, 20, 15];

const AT = { outbound: 'out', inbound: 'in', waypoint: 'wp' } as const;

/** @param width of the line; Infinity to cut nothing */
export function eventLine(event: TrafficEvent, width: number): string {
  return tapLine(
    [
      new Date(event.timeMs).toISOString().slice(11, 23),
      AT[event.direction],
      nameOf(event.source, width),
      toOf(event, width),
      whatOf(event),
      resultOf(event),
    ],
    width,
  );
}

export function tapLine(cells: readonly string[], width: number): string {
  const line = cells.map((cell, column) => {
    const room = WIDTHS[column];
    if (room === undefined) return cell;
    return (width === Infinity ? cell : shortened(cell, room)).padEnd(room);
  });
  const whole = line.join('  ').trimEnd();
  // What a result begins with says most.
  return whole.length > width ? `${whole.slice(0, width - 1)}…` : whole;
}

/** Pods by their workload, where there is no room for more. */
const nameOf = ({ namespace, name, workload, address }: EventEnd, width: number): string => {
  const of = width === Infinity ? name || workload : workload || name;
  return of === '' ? address : `${namespace}/${of}`;
};

function toOf({ destination, service, port }: TrafficEvent, width: number): string {
  const name = service ? `${service.namespace}/${service.name}` : nameOf(destination, width);
  return name === destination.address ? name : `${name}:${port}`;
}

function whatOf({ type, request }: TrafficEvent): string {
  if (!request) return type;
  return `${request.method} ${request.path}`;
}

function resultOf({ type, request, durationMs, bytesForward, bytesBackward, mutualTls, code, policy, message }: TrafficEvent): string {
  const security = mutualTls ? 'mTLS' : 'plain';
  if (type === 'opened') return security;
  const status = request ? [String(request.status), ...(request.grpcStatus === undefined ? [] : [`grpc ${request.grpcStatus}`])] : [];
  if (code !== undefined) return [...status, policy === undefined ? `${code}: ${message ?? ''}` : `${code} ${policy}`].join(' ');
  const sizes = `${bytes(bytesForward)}/${bytes(bytesBackward)}`;
  return [...status, milliseconds(durationMs), sizes, security].join(' ');
}
