/**
 * The mesh's state on disk (decision 9): what the control plane said last, so that a ztunnel that restarts while it is away goes on as
 * before. A journal of pushes under a picture of everything: each push is appended when it is applied, since a policy that came a second ago
 * must not be forgotten; when the pushes outgrow the picture, a new picture replaces both. Nothing in it is secret; keys are elsewhere.
 *
 * The file's time of change is the last moment at which the control plane was there: an age limit on it keeps a node that was away for
 * days from acting on what nobody means any more. Nothing is synced to the platter: what shall be survived is the end of a process, and with
 * the machine's memory the keys are gone too.
 */
import { closeSync, futimesSync, openSync, readdirSync, readFileSync, renameSync, statSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { DeltaResponse } from '../../common/client/delta-response.ts';
import { DeltaDiscoveryResponse } from '../../common/codec/gen/discovery.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type MeshStateWriter, type StatePush, type StateResource } from '../../common/state/writer.ts';
import { openPrivateFolder, writeAll } from './private-folder.ts';

export interface KeptStateOptions {
  readonly folder: string;
  /** State that has not been confirmed for longer is not used. */
  readonly maxAgeMs: number;
  /**
   * Whose state it is: that of another cluster or node is not used, nor what was written before the machine was last booted, since it may
   * have lost its latest policies.
   */
  readonly owner: { readonly clusterId: string; readonly node: string; readonly network: string; readonly boot: string };
  readonly writer: MeshStateWriter;
  readonly clock: Clock;
  readonly log: Log;
}

/** What was found at the start. */
export interface RestoredState {
  readonly resources: number;
  readonly ageMs: number;
}

const MAGIC = 'WARREN-MESH-STATE 1\n';
const NAME = /^mesh-(\d+)-\d+\.state$/;
const FRAME_BYTES = 8;
/** A resource has at most four; a frame is one push, or a piece of the picture. */
const MAX_FRAME_BYTES = 256 << 20;
const PICTURE_CHUNK = 500;
/** Below this a journal is not worth rewriting. */
const MIN_REWRITE_BYTES = 1 << 20;
const CONFIRM_MS = 10_000;
/** A clock that was set back makes files of the future; a little of that is nothing. */
const MAX_FUTURE_MS = 600_000;

export class KeptState {
  readonly #options: KeptStateOptions;
  readonly #name: string;
  readonly #header: Buffer;
  #fd: number | undefined;
  #pictureBytes = 0;
  #journalBytes = 0;
  #confirmedAt = -Infinity;
  /** Everything that there is has come once: only then is what we have a picture, and not one without its policies. */
  #complete = false;
  #stopped = false;

  private constructor(options: KeptStateOptions) {
    const { clock, owner } = options;
    this.#options = options;
    // A file for each process: while one ztunnel hands over to another, both write.
    this.#name = `mesh-${Math.round(clock.now())}-${process.pid}.state`;
    const { clusterId, node, network, boot } = owner;
    this.#header = Buffer.from(`${MAGIC}${JSON.stringify({ clusterId, node, network, boot })}\n`);
  }

  /** @returns undefined, and a line in the log, where nothing can be kept there */
  static open(options: KeptStateOptions): KeptState | undefined {
    try {
      openPrivateFolder(options.folder);
      return new KeptState(options);
    } catch (error) {
      options.log.warn({ folder: options.folder, error: errorMessage(error) }, 'state is not kept over a restart');
      return undefined;
    }
  }

  /** Applies what an earlier process left. @returns undefined where nothing of use was left */
  restore(): RestoredState | undefined {
    const { folder, log, writer, clock } = this.#options;
    for (const name of this.#files()) {
      const path = join(folder, name);
      try {
        const ageMs = this.#age(path);
        const rejected = this.#pushes(readFileSync(path)).flatMap((push) => writer.apply(push).rejected);
        const [first] = rejected;
        // A policy that another version of us took and this one does not take is missing now, and nobody may profit from that.
        if (first) throw new Error(`${first.name}: ${first.reason}`);
        this.#complete = true;
        const { workloads, services, policies } = writer.stats();
        this.#confirmedAt = clock.now() - ageMs;
        return { resources: workloads + services + policies, ageMs };
      } catch (error) {
        log.warn({ file: path, error: errorMessage(error) }, 'kept state is of no use');
      }
    }
    return undefined;
  }

  /** Every type has come as a whole. */
  synced(): void {
    if (this.#stopped || this.#complete) return;
    this.#complete = true;
    this.#guarded(() => this.#writePicture());
    this.confirm();
  }

  /**
   * A push was applied; `rejected` names what was not taken of it. The response that it came in is kept as it is, where it is given and
   * all of it was taken.
   */
  applied(push: StatePush & { readonly encoded?: Uint8Array }, rejected: ReadonlySet<string>): void {
    if (this.#stopped || !this.#complete) return;
    this.#guarded(() => {
      if (this.#fd === undefined || this.#journalBytes > Math.max(MIN_REWRITE_BYTES, this.#pictureBytes)) {
        // The picture has the push in it.
        this.#writePicture();
        return;
      }
      const asItCame = rejected.size === 0 ? push.encoded : undefined;
      const taken = (): Uint8Array =>
        encode({ ...push, resources: Iterator.from(push.resources).filter(({ name }) => !rejected.has(name)) });
      this.#journalBytes += appendFrame(this.#fd, asItCame ?? taken());
    });
    this.confirm();
  }

  /** The control plane is there, so that what is kept is what it means. */
  confirm(): void {
    const now = this.#options.clock.now();
    if (this.#fd === undefined || Math.abs(now - this.#confirmedAt) < CONFIRM_MS) return;
    const fd = this.#fd;
    this.#confirmedAt = now;
    this.#guarded(() => futimesSync(fd, now / 1000, now / 1000));
  }

  close(): void {
    this.#stopped = true;
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** Newest first. */
  #files(): string[] {
    const found = readdirSync(this.#options.folder).filter((name) => NAME.test(name));
    const startedAt = (name: string): number => Number(NAME.exec(name)?.[1]);
    return found.sort((a, b) => startedAt(b) - startedAt(a));
  }

  /** @throws {Error} where it is too old, or of the future */
  #age(path: string): number {
    const { clock, maxAgeMs } = this.#options;
    const ageMs = clock.now() - statSync(path).mtimeMs;
    if (ageMs > maxAgeMs) throw new Error(`it was last confirmed ${Math.round(ageMs / 1000)} s ago, the limit is ${maxAgeMs / 1000} s`);
    if (ageMs < -MAX_FUTURE_MS) throw new Error('it is of the future: the clock was set back');
    return Math.max(0, ageMs);
  }

  /** @throws {Error} before the first push for a file of another kind or owner; a torn end is the end */
  #pushes(bytes: Buffer): StatePush[] {
    if (!bytes.subarray(0, this.#header.length).equals(this.#header)) {
      const own = bytes.subarray(0, MAGIC.length).toString('latin1') === MAGIC;
      throw new Error(own ? 'it is of another cluster, node, network or boot' : 'it has another version');
    }
    const pushes: StatePush[] = [];
    for (let at = this.#header.length; at + FRAME_BYTES <= bytes.length; ) {
      const length = bytes.readUInt32BE(at);
      const frame = bytes.subarray(at + FRAME_BYTES, at + FRAME_BYTES + length);
      // A process that was killed while it wrote: what stands before is whole.
      if (length > MAX_FRAME_BYTES || frame.length < length || crc32(frame) !== bytes.readUInt32BE(at + 4)) break;
      pushes.push(DeltaResponse.decode(frame));
      at += FRAME_BYTES + length;
    }
    if (pushes.length === 0) throw new Error('it is empty or damaged');
    return pushes;
  }

  #writePicture(): void {
    const { folder, writer } = this.#options;
    const temporary = join(folder, `.${this.#name}`);
    const fd = openSync(temporary, 'w', 0o600);
    try {
      writeAll(fd, this.#header);
      let bytes = 0;
      for (const typeUrl of [ADDRESS_TYPE, AUTHORIZATION_TYPE]) {
        let resources: StateResource[] = [];
        for (const resource of writer.held(typeUrl)) {
          resources.push(resource);
          if (resources.length < PICTURE_CHUNK) continue;
          bytes += appendFrame(fd, encode({ typeUrl, resources, removed: [] }));
          resources = [];
        }
        bytes += appendFrame(fd, encode({ typeUrl, resources, removed: [] }));
      }
      renameSync(temporary, join(folder, this.#name));
      this.#pictureBytes = bytes;
      this.#journalBytes = 0;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = fd;
    this.#dropOlder();
  }

  /** Of a ztunnel that hands over to us, and of one that we hand over to, one file each stays. */
  #dropOlder(): void {
    const others = this.#files().filter((name) => name !== this.#name);
    for (const name of others.slice(1)) unlinkSync(join(this.#options.folder, name));
  }

  /** A full disk costs the memory of the state, not the state. */
  #guarded(write: () => void): void {
    try {
      write();
    } catch (error) {
      this.#options.log.warn({ folder: this.#options.folder, error: errorMessage(error) }, 'state could not be kept');
      // The file may end in half a push; the next push starts a new one.
      if (this.#fd !== undefined) closeSync(this.#fd);
      this.#fd = undefined;
    }
  }
}

/** @returns bytes that it took */
function appendFrame(fd: number, frame: Uint8Array): number {
  const head = Buffer.alloc(FRAME_BYTES);
  head.writeUInt32BE(frame.length, 0);
  head.writeUInt32BE(crc32(frame), 4);
  writeAll(fd, head);
  writeAll(fd, frame);
  return FRAME_BYTES + frame.length;
}

const encode = ({ typeUrl, resources, removed }: StatePush): Uint8Array =>
  DeltaDiscoveryResponse.encode({
    systemVersionInfo: '',
    typeUrl,
    nonce: '',
    resources: Array.from(resources, ({ name, version, bytes }) => ({ name, version, aliases: [], resource: { typeUrl, value: bytes } })),
    removedResources: [...removed],
  }).finish();
