/**
 * The Secret `istio-ca-secret`: Istio's keys, and beside them what a rotation needs to remember. Each step of a rotation is one change of this
 * object, under compare and swap, so that of several replicas one makes it.
 * @see Istio: security/pkg/pki/ca/ca.go
 */
import { createPrivateKey } from 'node:crypto';
import { minutes } from '../../common/base/clock.ts';
import type { KubeObject } from '../../common/client/kube-api.ts';
import { selfSignedRoot } from '../../common/codec/x509/certificate.ts';
import { readCertificate } from '../../common/codec/x509/read-certificate.ts';
import type { CaMaterial } from './authority.ts';
import {
  LONGEST_CERTIFICATE,
  ROTATION_PHASE,
  ROTATION_REQUEST,
  ROTATION_SINCE,
  type RotationState,
  type RotationStep,
} from './rotation.ts';

export const CA_SECRET = 'istio-ca-secret';
const SECRET_TYPE = 'istio.io/ca-root';
const BACKDATED_MS = minutes(2);

const CERTIFICATE = 'ca-cert.pem';
const KEY = 'ca-key.pem';
/** All trusted roots; empty where that is the signing one alone, as Istio leaves it. */
const ROOTS = 'root-cert.pem';
const NEXT_CERTIFICATE = 'next-ca-cert.pem';
const NEXT_KEY = 'next-ca-key.pem';

export interface CaSecret extends KubeObject {
  data?: Record<string, string>;
}

export interface RootParameters {
  readonly trustDomain: string;
  readonly lifetimeMs: number;
  /** Milliseconds since 1970. */
  readonly now: number;
}

export const secretPath = (namespace: string, name?: string): string =>
  `/api/v1/namespaces/${namespace}/secrets${name === undefined ? '' : `/${name}`}`;

export function newSecret(namespace: string, parameters: RootParameters): CaSecret {
  const root = newRoot(parameters);
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: CA_SECRET, namespace },
    type: SECRET_TYPE,
    data: encoded({ [CERTIFICATE]: root.certificatePem, [KEY]: root.keyPem, 'cert-chain.pem': '', 'key.pem': '', [ROOTS]: '' }),
  };
}

/** @throws Error naming what is missing */
export function materialOf(secret: CaSecret): CaMaterial {
  const certificatePem = field(secret, CERTIFICATE);
  const keyPem = field(secret, KEY);
  if (!certificatePem || !keyPem) throw new Error(`Secret ${CA_SECRET} has no ${CERTIFICATE} or no ${KEY}`);
  return { certificatePem, keyPem, chainPem: '', rootBundlePem: field(secret, ROOTS) || certificatePem };
}

/** @throws Error where the Secret has no certificate that can be read */
export function rotationOf(secret: CaSecret): RotationState {
  const { annotations = {} } = secret.metadata;
  const phase = annotations[ROTATION_PHASE];
  const requested = annotations[ROTATION_REQUEST];
  return {
    phase: phase === 'introduced' || phase === 'switched' ? phase : 'none',
    since: Date.parse(annotations[ROTATION_SINCE] ?? '') || 0,
    requested: requested === 'start' || requested === 'abort' ? requested : undefined,
    signer: readCertificate(materialOf(secret).certificatePem),
    longestCertificate: Date.parse(annotations[LONGEST_CERTIFICATE] ?? '') || 0,
  };
}

/** The Secret after a step. */
export function afterStep(secret: CaSecret, step: RotationStep, parameters: RootParameters): CaSecret {
  const { certificatePem, keyPem } = materialOf(secret);
  switch (step) {
    case 'renew':
      return changed(secret, { [CERTIFICATE]: newRoot(parameters, keyPem).certificatePem });
    case 'introduce': {
      const next = newRoot(parameters);
      const fields = { [NEXT_CERTIFICATE]: next.certificatePem, [NEXT_KEY]: next.keyPem, [ROOTS]: certificatePem + next.certificatePem };
      return changed(secret, fields, 'introduced', parameters.now);
    }
    case 'drop':
      return changed(secret, { [NEXT_CERTIFICATE]: undefined, [NEXT_KEY]: undefined, [ROOTS]: '' }, 'none');
    case 'switch': {
      const fields = { [CERTIFICATE]: field(secret, NEXT_CERTIFICATE), [KEY]: field(secret, NEXT_KEY) };
      if (!fields[CERTIFICATE] || !fields[KEY]) throw new Error(`Secret ${CA_SECRET} has lost the root that was introduced`);
      return changed(secret, { ...fields, [NEXT_CERTIFICATE]: undefined, [NEXT_KEY]: undefined }, 'switched', parameters.now);
    }
    case 'retire':
      return changed(secret, { [ROOTS]: '' }, 'none');
  }
}

export const withAnnotation = (secret: CaSecret, name: string, value: string): CaSecret => ({
  ...secret,
  metadata: { ...secret.metadata, annotations: { ...secret.metadata.annotations, [name]: value } },
});

function newRoot({ trustDomain, lifetimeMs, now }: RootParameters, keyPem?: string) {
  const key = keyPem === undefined ? {} : { key: createPrivateKey(keyPem) };
  return selfSignedRoot({ trustDomain, ...key, notBefore: now - BACKDATED_MS, notAfter: now + lifetimeMs });
}

/** `undefined` takes a field away; a wish has been followed when a phase is entered. */
function changed(
  secret: CaSecret,
  fields: Readonly<Record<string, string | undefined>>,
  phase?: RotationState['phase'],
  since?: number,
): CaSecret {
  const data: Record<string, string | undefined> = { ...secret.data };
  for (const [name, text] of Object.entries(fields)) data[name] = text === undefined ? undefined : base64(text);
  const annotations: Record<string, string | undefined> = { ...secret.metadata.annotations };
  if (phase !== undefined) {
    annotations[ROTATION_REQUEST] = undefined;
    annotations[ROTATION_PHASE] = phase === 'none' ? undefined : phase;
    annotations[ROTATION_SINCE] = since === undefined ? undefined : new Date(since).toISOString();
  }
  return { ...secret, metadata: { ...secret.metadata, annotations: defined(annotations) }, data: defined(data) };
}

const defined = (fields: Readonly<Record<string, string | undefined>>): Record<string, string> =>
  Object.fromEntries(Object.entries(fields).flatMap(([name, text]) => (text === undefined ? [] : [[name, text]])));

const field = ({ data = {} }: CaSecret, name: string): string => Buffer.from(data[name] ?? '', 'base64').toString('utf8');
const base64 = (text: string): string => Buffer.from(text).toString('base64');
const encoded = (fields: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(fields).map(([name, text]) => [name, base64(text)]));
