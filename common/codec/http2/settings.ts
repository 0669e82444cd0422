/** What the peer's SETTINGS say, with RFC 9113's defaults and checks (section 6.5.2). */
import { ErrorCode, Http2ConnectionError } from './errors.ts';
import { DEFAULT_FRAME_SIZE, DEFAULT_WINDOW, LARGEST_FRAME_SIZE, LARGEST_WINDOW, Setting, type SettingEntries } from './frames.ts';

export interface PeerSettings {
  readonly headerTableSize: number;
  readonly enablePush: boolean;
  /** Streams that we may have open; Infinity where the peer set no limit. */
  readonly maxConcurrentStreams: number;
  readonly initialWindowSize: number;
  readonly maxFrameSize: number;
  /** Infinity where the peer set no limit. */
  readonly maxHeaderListSize: number;
}

export const defaultPeerSettings: PeerSettings = {
  headerTableSize: 4096,
  enablePush: true,
  maxConcurrentStreams: Number.POSITIVE_INFINITY,
  initialWindowSize: DEFAULT_WINDOW,
  maxFrameSize: DEFAULT_FRAME_SIZE,
  maxHeaderListSize: Number.POSITIVE_INFINITY,
};

/**
 * The settings after a SETTINGS frame; unknown identifiers are ignored.
 * @throws {Http2ConnectionError} for a value outside its range
 */
export function applySettings(before: PeerSettings, entries: SettingEntries): PeerSettings {
  const after = { ...before };
  for (const [id, value] of entries) {
    switch (id) {
      case Setting.HEADER_TABLE_SIZE:
        after.headerTableSize = value;
        break;
      case Setting.ENABLE_PUSH:
        if (value > 1) throw new Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, `SETTINGS_ENABLE_PUSH is ${value}`);
        after.enablePush = value === 1;
        break;
      case Setting.MAX_CONCURRENT_STREAMS:
        after.maxConcurrentStreams = value;
        break;
      case Setting.INITIAL_WINDOW_SIZE:
        if (value > LARGEST_WINDOW)
          throw new Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, `SETTINGS_INITIAL_WINDOW_SIZE is ${value}`);
        after.initialWindowSize = value;
        break;
      case Setting.MAX_FRAME_SIZE:
        if (value < DEFAULT_FRAME_SIZE || value > LARGEST_FRAME_SIZE) {
          throw new Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, `SETTINGS_MAX_FRAME_SIZE is ${value}`);
        }
        after.maxFrameSize = value;
        break;
      case Setting.MAX_HEADER_LIST_SIZE:
        after.maxHeaderListSize = value;
        break;
    }
  }
  return after;
}
