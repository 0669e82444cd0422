/**
 * The revocation list in a file (CRL_PATH): read at the start and whenever it changes, also by a swapped link, as Kubernetes does it. A file
 * that is missing revokes nothing until it comes; one that cannot be read leaves the list in force that there is.
 */
import { readFileSync, statSync } from 'node:fs';
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { parseCrls, type RevokedSerials } from '../../common/codec/x509/crl.ts';

export interface CrlFileOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly log: Log;
  changed(revoked: RevokedSerials): void;
}

const LOOK_MS = 2000;
const MAX_BYTES = 64 << 20;

/** Calls `changed` before it returns, if only with an empty list, and then after each change. */
export function watchCrl({ path, clock, log, changed }: CrlFileOptions): void {
  let seen: string | undefined;
  let missing = false;
  const look = (): void => {
    const now = fingerprint(path);
    if (now === seen) return;
    seen = now;
    if (now === undefined) {
      if (!missing) log.warn({ path }, 'the revocation list is not there; nothing is revoked until it comes');
      missing = true;
      return;
    }
    missing = false;
    try {
      const revoked = parseCrls(readFileSync(path));
      const serials = [...revoked.values()].reduce((sum, { size }) => sum + size, 0);
      log.info({ path, issuers: revoked.size, serials }, 'revocation list read');
      changed(revoked);
    } catch (error) {
      log.error({ path, error: errorMessage(error) }, 'the revocation list cannot be used; the one before stays in force');
    }
  };
  const arm = (): void => {
    clock.after(LOOK_MS, () => {
      look();
      arm();
    });
  };
  changed(new Map());
  seen = '';
  look();
  arm();
}

/** Changes whenever the file does; undefined where there is none. */
function fingerprint(path: string): string | undefined {
  try {
    const { ino, size, mtimeMs } = statSync(path);
    return size > MAX_BYTES ? 'too large' : `${ino} ${size} ${mtimeMs}`;
  } catch {
    return undefined;
  }
}
