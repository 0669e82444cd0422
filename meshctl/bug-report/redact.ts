/**
 * What must not leave a cluster is taken out of everything that goes into a bundle: keys, tokens and passwords in texts, by their form;
 * values of fields and variables whose name says that they are secret; data of Secrets, whole. Pure.
 */
const REDACTED = '(redacted)';

/** By form, wherever they stand. */
const SECRETS: readonly RegExp[] = [
  // Private keys in PEM, also with newlines written out or escaped once more.
  /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)/g,
  // The same in base64, as a Secret has it: "-----BEGIN " at its beginning.
  /LS0tLS1CRUdJTi[A-Za-z0-9+/]{0,8}(?=[A-Za-z0-9+/]*UFJJVkFURSBLRV|[A-Za-z0-9+/]*BSSVZBVEUgS0VZ|[A-Za-z0-9+/]*QUklWQVRFIEtFW)[A-Za-z0-9+/=]+/g,
  // JSON Web Tokens: service accounts' and users'.
  /\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?/g,
];

/** NAME=VALUE, NAME: VALUE and "NAME": "VALUE" with a name that says so; the name stays. */
const NAMED =
  /((?:["']|\\")?\b[\w.-]*(?:password|passwd|secret[_-]?key|access[_-]?key|private[_-]?key|api[_-]?key|client[_-]?secret|token|credential)s?(?:["']|\\")?\s*[=:]\s*)(\\"[^"\\\r\n]{4,}\\"|"[^"\r\n]{4,}"|'[^'\r\n]{4,}'|[^\s"',;&}\]\\]{4,})/gi;
const SCHEME = /\b(authorization["']?\s*[=:]\s*["']?)?\b(Bearer|Basic)\s+[A-Za-z0-9+/=._~-]{8,}/gi;
const URL_PASSWORD = /(\b[a-z][a-z0-9+.-]*:\/\/[^\s/:@]+:)[^\s/@]+(@)/gi;

/** Harmless words that look like a value. */
const HARMLESS = /^["'\\]*(?:true|false|null|undefined|none|file|\/[\w./-]+|\.\/[\w./-]+|\(redacted\)|\d{1,3})["'\\]*$/i;

export function redactText(text: string): string {
  let clean = text;
  for (const form of SECRETS) clean = clean.replaceAll(form, REDACTED);
  clean = clean.replaceAll(SCHEME, (_all, before: string | undefined, scheme: string) => `${before ?? ''}${scheme} ${REDACTED}`);
  clean = clean.replaceAll(URL_PASSWORD, `$1${REDACTED}$2`);
  return clean.replaceAll(NAMED, (all, name: string, value: string) => (HARMLESS.test(value) ? all : name + quoteLike(value)));
}

/** What was a string in JSON stays one. */
const quoteLike = (value: string): string => {
  const quote = /^(\\"|["'])/.exec(value)?.[1] ?? '';
  return quote + REDACTED + quote;
};

const SECRET_NAME = /(?:password|passwd|secret|token|credential|private_?key|api_?key|access_?key)/i;
/** Fields that are named so and say where a secret is, or how it is handled, and not what it is. */
const NOT_SECRET =
  /^(?:secretName|secretKeyRef|secretRef|automountServiceAccountToken|serviceAccountToken|imagePullSecrets|secrets|.*(?:Ref|Name|Path|Seconds|Types|Policy))$/;

/** A copy of an object of Kubernetes, or any JSON, without what is secret. */
export function redactObject(value: unknown): unknown {
  if (typeof value === 'string') return redactText(value);
  if (Array.isArray(value)) return value.map(redactObject);
  if (value === null || typeof value !== 'object') return value;
  const object = value as Readonly<Record<string, unknown>>;
  const isSecret = object.kind === 'Secret';
  // A variable or a header: `{name, value}`.
  if (typeof object.name === 'string' && typeof object.value === 'string' && SECRET_NAME.test(object.name))
    return { ...object, value: HARMLESS.test(object.value) ? object.value : REDACTED };
  return Object.fromEntries(
    Object.entries(object).flatMap(([name, field]): [string, unknown][] => {
      if (name === 'managedFields' || name === 'kubectl.kubernetes.io/last-applied-configuration') return [];
      if (isSecret && (name === 'data' || name === 'stringData'))
        return [[name, Object.fromEntries(Object.keys(field as object).map((key) => [key, REDACTED]))]];
      if (typeof field === 'string' && SECRET_NAME.test(name) && !NOT_SECRET.test(name) && !HARMLESS.test(field)) return [[name, REDACTED]];
      return [[name, redactObject(field)]];
    }),
  );
}
