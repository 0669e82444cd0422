/**
 * When a self-signed root is replaced, and how, as pure decisions. A root that grows old is signed again with the same key: what it signed
 * stays good. A new key needs everybody to trust both roots first, so it takes three steps with a wait between them, each longer than the
 * certificates live: introduce (both are trusted, the old one signs), switch (the new one signs), retire (the old one is trusted no more).
 * An interrupted rotation goes on where it stood, whichever replica writes by then: all of it is in the Secret.
 */

export const ROTATION_REQUEST = 'warren.dev/ca-rotation';
export const ROTATION_PHASE = 'warren.dev/ca-rotation-phase';
export const ROTATION_SINCE = 'warren.dev/ca-rotation-since';
/** Until when a certificate is valid that was asked for with a longer lifetime than the wait. */
export const LONGEST_CERTIFICATE = 'warren.dev/ca-longest-certificate';

export interface RotationState {
  readonly phase: 'none' | 'introduced' | 'switched';
  /** Since when; milliseconds since 1970. */
  readonly since: number;
  readonly requested: 'start' | 'abort' | undefined;
  /** Of the certificate that signs. */
  readonly signer: { readonly notBefore: number; readonly notAfter: number };
  /** Until when the certificates are valid that live longer than the wait; 0 where there is none. */
  readonly longestCertificate: number;
}

export type RotationStep = 'renew' | 'introduce' | 'drop' | 'switch' | 'retire';

export interface Planned {
  readonly step: RotationStep;
  /** Milliseconds since 1970; it is due when this has passed. */
  readonly at: number;
}

// Of its life left.
const RENEW_BELOW = 0.2;

/** What is to be done next, and when; undefined where only somebody's wish would change anything. */
export function nextStep({ phase, since, requested, signer, longestCertificate }: RotationState, waitMs: number): Planned {
  switch (phase) {
    case 'introduced':
      return requested === 'abort' ? { step: 'drop', at: 0 } : { step: 'switch', at: since + waitMs };
    case 'switched':
      // Nobody's certificate may lose its root before it has expired.
      return { step: 'retire', at: Math.max(since + waitMs, longestCertificate) };
    case 'none':
      if (requested === 'start') return { step: 'introduce', at: 0 };
      return { step: 'renew', at: signer.notAfter - (signer.notAfter - signer.notBefore) * RENEW_BELOW };
  }
}

/** The steps of a rotation that would start now: what a rehearsal shows. */
export function plan(state: RotationState, waitMs: number, now: number): Planned[] {
  const { longestCertificate } = state;
  if (state.phase === 'switched') return [nextStep(state, waitMs)];
  const introduced = state.phase === 'introduced' ? state.since : now;
  const switched = Math.max(now, introduced + waitMs);
  const rest: Planned[] = [
    { step: 'switch', at: switched },
    { step: 'retire', at: Math.max(switched + waitMs, longestCertificate) },
  ];
  return state.phase === 'introduced' ? rest : [{ step: 'introduce', at: now }, ...rest];
}
