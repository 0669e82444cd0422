/** Writes down what a FrameDecoder hands on, one line for each event, DATA joined to whole frames. */
import { FrameDecoder, type FrameDecoderOptions, type FrameHandler } from '../../common/codec/http2/frame-decoder.ts';

export const generousDecoder: FrameDecoderOptions = {
  expectPreface: false,
  maxFrameSize: 1 << 20,
  maxHeaderBlock: 64 << 10,
  maxContinuations: 16,
};

export class FrameRecorder implements FrameHandler {
  readonly events: string[] = [];

  dataStart(streamId: number, length: number) {
    const pieces: Buffer[] = [];
    return {
      dataSlice: (bytes: Buffer) => void pieces.push(bytes),
      dataEnd: (padding: number, endStream: boolean) => {
        this.events.push(
          `data ${streamId} of ${length}: ${Buffer.concat(pieces).toString('hex')} padding ${padding}${endStream ? ' end' : ''}`,
        );
      },
    };
  }

  headers(streamId: number, block: Buffer, endStream: boolean): void {
    this.events.push(`headers ${streamId}: ${block.toString('hex')}${endStream ? ' end' : ''}`);
  }

  rstStream(streamId: number, code: number): void {
    this.events.push(`rst ${streamId} ${code}`);
  }

  settings(entries: readonly (readonly [number, number])[]): void {
    this.events.push(`settings ${entries.map(([id, value]) => `${id}=${value}`).join(' ')}`);
  }

  settingsAck(): void {
    this.events.push('settings ack');
  }

  ping(opaque: Buffer, ack: boolean): void {
    this.events.push(`ping ${opaque.toString('hex')}${ack ? ' ack' : ''}`);
  }

  goaway(lastStreamId: number, code: number, debug: string): void {
    this.events.push(`goaway ${lastStreamId} ${code} ${debug}`);
  }

  windowUpdate(streamId: number, increment: number): void {
    this.events.push(`window ${streamId} ${increment}`);
  }

  ignored(type: number): void {
    this.events.push(`ignored ${type}`);
  }

  streamError(streamId: number, code: number, message: string): void {
    this.events.push(`stream error ${streamId} ${code} ${message}`);
  }
}

/** The events of these bytes, cut into chunks of one size; an error that ends the connection is the last event. */
export function decodeFrames(bytes: Buffer, chunkSize: number, options: Partial<FrameDecoderOptions> = {}): string[] {
  const recorder = new FrameRecorder();
  const decoder = new FrameDecoder({ ...generousDecoder, ...options }, recorder);
  try {
    for (let at = 0; at < bytes.length; at += chunkSize) decoder.push(bytes.subarray(at, at + chunkSize));
  } catch (error) {
    recorder.events.push(`error ${error instanceof Error && 'code' in error ? error.code : error}`);
  }
  return recorder.events;
}
