/** The syntax of names, labels and ports that Kubernetes checks on every object. */
import type { FieldCause } from '../api-error.ts';
import { isObject, objectOf, stringOf } from '../json.ts';
import type { KubeObject } from '../object.ts';
import { invalid, required } from './behaviour.ts';

type Path = readonly (string | number)[];

const LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const QUALIFIED = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/;
const RFC1035 = /^[a-z]([-a-z0-9]*[a-z0-9])?$/;

const LABEL_RULE =
  "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_RULE =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";

// Their names become DNS names or path segments with rules of their own.
const LABEL_NAMED = new Set(['Namespace']);
const RFC1035_NAMED = new Set(['Service']);
const FREE_NAMED = new Set(['Role', 'RoleBinding', 'ClusterRole', 'ClusterRoleBinding']);

export function checkMetadata(object: KubeObject): FieldCause[] {
  const { name, labels, annotations, finalizers, ownerReferences } = object.metadata;
  const causes: FieldCause[] = [];
  if (name === undefined || name === '')
    causes.push({ ...required('metadata', 'name'), message: 'Required value: name or generateName is required' });
  else causes.push(...checkName(object.kind, name));
  for (const [key, value] of Object.entries(labels ?? {})) causes.push(...checkLabel(['metadata', 'labels'], key, value));
  for (const key of Object.keys(annotations ?? {})) {
    if (!isQualifiedName(key.toLowerCase()))
      causes.push(
        invalid(
          ['metadata', 'annotations'],
          key,
          "name part must consist of alphanumeric characters, '-', '_' or '.', with an optional DNS prefix and '/'",
        ),
      );
  }
  (finalizers ?? []).forEach((finalizer, i) => {
    if (!isQualifiedName(finalizer)) causes.push(invalid(['metadata', 'finalizers', i], finalizer, 'must be a qualified name'));
  });
  (ownerReferences ?? []).forEach((owner, i) => {
    for (const field of ['apiVersion', 'kind', 'name', 'uid'] as const) {
      if (!owner[field]) causes.push(required('metadata', 'ownerReferences', i, field));
    }
  });
  if ((ownerReferences ?? []).filter((owner) => owner.controller).length > 1) {
    causes.push(invalid(['metadata', 'ownerReferences'], ownerReferences, 'only one reference can have controller set to true'));
  }
  return causes;
}

function checkName(kind: string, name: string): FieldCause[] {
  const path = ['metadata', 'name'];
  if (FREE_NAMED.has(kind))
    return /^[^/%]+$/.test(name) && name !== '.' && name !== '..' ? [] : [invalid(path, name, "may not contain '/' or '%'")];
  if (RFC1035_NAMED.has(kind)) {
    return RFC1035.test(name) && name.length <= 63
      ? []
      : [
          invalid(
            path,
            name,
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character, at most 63 of them",
          ),
        ];
  }
  if (LABEL_NAMED.has(kind)) return isLabel(name) ? [] : [invalid(path, name, LABEL_RULE)];
  return isSubdomain(name) ? [] : [invalid(path, name, SUBDOMAIN_RULE)];
}

export const isLabel = (text: string): boolean => text.length <= 63 && LABEL.test(text);
export const isSubdomain = (text: string): boolean => text.length <= 253 && SUBDOMAIN.test(text);

/** A port's name: 15 characters with a letter among them. */
export const isPortName = (text: string): boolean => text.length <= 15 && LABEL.test(text) && /[a-z]/.test(text) && !text.includes('--');

export const isPort = (value: unknown): boolean => Number.isInteger(value) && Number(value) >= 1 && Number(value) <= 65535;

export function checkLabel(path: Path, key: string, value: unknown): FieldCause[] {
  if (!isQualifiedName(key))
    return [
      invalid(
        path,
        key,
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character, with an optional DNS prefix and '/'",
      ),
    ];
  const text = stringOf(value);
  if (text.length > 63) return [invalid(path, value, 'must be no more than 63 characters')];
  if (text !== '' && !QUALIFIED.test(text)) {
    return [
      invalid(
        path,
        value,
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
      ),
    ];
  }
  return [];
}

export function checkSelector(path: Path, selector: unknown): FieldCause[] {
  if (!isObject(selector)) return [];
  const labels = Object.entries(objectOf(selector.matchLabels)).flatMap(([key, value]) => checkLabel([...path, 'matchLabels'], key, value));
  const expressions = Array.isArray(selector.matchExpressions) ? selector.matchExpressions : [];
  const operators = expressions.flatMap((expression, i) => {
    const { operator, values } = objectOf(expression);
    const at = [...path, 'matchExpressions', i];
    const count = Array.isArray(values) ? values.length : 0;
    if (operator === 'In' || operator === 'NotIn') {
      return count > 0
        ? []
        : [{ ...required(...at, 'values'), message: "Required value: must be specified when `operator` is 'In' or 'NotIn'" }];
    }
    if (operator !== 'Exists' && operator !== 'DoesNotExist')
      return [invalid([...at, 'operator'], operator, 'not a valid selector operator')];
    return count === 0 ? [] : [invalid([...at, 'values'], values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")];
  });
  return [...labels, ...operators];
}

function isQualifiedName(text: string): boolean {
  const slash = text.indexOf('/');
  const name = text.slice(slash + 1);
  if (slash >= 0 && !isSubdomain(text.slice(0, slash))) return false;
  return name.length > 0 && name.length <= 63 && QUALIFIED.test(name);
}
