/**
 * `warren.dev/require-waypoint` on a pod or its namespace: who dials the pod past its waypoint is refused by the pod's ztunnel. The pod's word
 * wins; what cannot be read is taken for the stricter reading.
 */
import type { RequiredWaypoint } from '../../common/decision/mesh-view.ts';
import * as names from './names.ts';
import { type Labels, portOf, quote, type Report } from './objects.ts';

export interface WaypointWords {
  /** undefined where nothing is said. */
  readonly required: boolean | undefined;
  readonly exceptPorts: readonly number[];
}

const SILENT: WaypointWords = { required: undefined, exceptPorts: [] };

/** @param annotations of a pod or a namespace */
export function readWaypointWords(annotations: Labels, report: Report): WaypointWords {
  const word = annotations[names.REQUIRE_WAYPOINT];
  const ports = annotations[names.REQUIRE_WAYPOINT_EXCEPT_PORTS];
  if (word === undefined && ports === undefined) return SILENT;
  if (word !== undefined && word !== 'true' && word !== 'false') {
    report(`annotation ${names.REQUIRE_WAYPOINT}: ${quote(word)} is neither true nor false; the waypoint is required`);
  }
  const exceptPorts = (ports ?? '').split(',').flatMap((text) => {
    const port = portOf(text.trim());
    if (port === undefined && text.trim() !== '') {
      report(`annotation ${names.REQUIRE_WAYPOINT_EXCEPT_PORTS}: ${quote(text.trim())} is no port, and is not left out`);
    }
    return port ?? [];
  });
  return { required: word === undefined ? undefined : word !== 'false', exceptPorts: [...new Set(exceptPorts)].sort((a, b) => a - b) };
}

/** Ports of both are left out. */
export function requiredWaypoint(own: WaypointWords, inherited: WaypointWords): RequiredWaypoint | undefined {
  if (!(own.required ?? inherited.required ?? false)) return undefined;
  const exceptPorts = [...new Set([...own.exceptPorts, ...inherited.exceptPorts])].sort((a, b) => a - b);
  return { always: own.required === true, exceptPorts };
}
