/** Pods and their templates: what the API server fills in (service account, its token volume, probes, pull policies) and what it refuses. */
import { ApiError, type FieldCause } from '../api-error.ts';
import { arrayOf, at, cloneDeep, equalDeep, isObject, type JsonObject, objectOf, stringOf } from '../json.ts';
import type { KubeObject } from '../object.ts';
import { type Behaviour, duplicate, forbidden, invalid, type KindContext, required, unsupported } from './behaviour.ts';
import { isLabel, isPort, isPortName } from './names.ts';

type Path = readonly (string | number)[];

const TOKEN_MOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';
const TOKEN_SECONDS = 3607;

export const podBehaviour: Behaviour = {
  create(pod, context) {
    const spec = objectOf(pod.spec);
    completePodSpec(spec);
    spec.enableServiceLinks ??= true;
    useServiceAccount(pod, spec, context);
    pod.status = { phase: 'Pending', qosClass: qosClass(spec) };
  },

  update(pod, old) {
    completePodSpec(objectOf(pod.spec));
    // Assigned by the node; a manifest that is applied again does not name it.
    const nodeName = at(old, 'spec', 'nodeName');
    const spec = objectOf(pod.spec);
    if (nodeName !== undefined && spec.nodeName === undefined) spec.nodeName = nodeName;
  },

  check(pod, old) {
    const causes = checkPodSpec(['spec'], objectOf(pod.spec));
    if (old && causes.length === 0) causes.push(...checkPodUpdate(objectOf(pod.spec), objectOf(old.spec)));
    return causes;
  },
};

/** Values that depend on other values of the same container. */
export function completePodSpec(spec: JsonObject): void {
  for (const container of containers(spec)) {
    const image = stringOf(container.image);
    container.imagePullPolicy ??= /:latest$/.test(image) || !/[:@][^/]*$/.test(image) ? 'Always' : 'IfNotPresent';
    const resources = objectOf(container.resources);
    const limits = objectOf(resources.limits);
    if (Object.keys(limits).length > 0) resources.requests = { ...limits, ...objectOf(resources.requests) };
  }
  if (spec.hostNetwork === true) {
    for (const container of containers(spec)) {
      for (const port of arrayOf(container.ports)) if (isObject(port)) port.hostPort ??= port.containerPort;
    }
  }
  // Two names of one field, the older of which is still filled in.
  spec.serviceAccountName ??= spec.serviceAccount;
  spec.serviceAccount ??= spec.serviceAccountName;
  for (const field of ['serviceAccountName', 'serviceAccount']) if (spec[field] === undefined) delete spec[field];
}

export function checkPodSpec(path: Path, spec: JsonObject): FieldCause[] {
  const causes: FieldCause[] = [];
  const list = arrayOf(spec.containers);
  if (list.length === 0) causes.push(required(...path, 'containers'));
  const volumes = new Set(arrayOf(spec.volumes).map((volume) => stringOf(at(volume, 'name'))));
  arrayOf(spec.volumes).forEach((volume, i) => {
    const name = stringOf(at(volume, 'name'));
    if (!isLabel(name)) causes.push(invalid([...path, 'volumes', i, 'name'], name, 'must be a DNS-1123 label'));
    const sources = Object.keys(objectOf(volume)).filter((key) => key !== 'name');
    if (sources.length === 0) causes.push({ ...required(...path, 'volumes', i), message: 'Required value: must specify a volume type' });
    if (sources.length > 1) causes.push(forbidden([...path, 'volumes', i, sources[1] ?? ''], 'may not specify more than 1 volume type'));
  });
  const names = new Set<string>();
  for (const field of ['initContainers', 'containers']) {
    arrayOf(spec[field]).forEach((container, i) => {
      const name = stringOf(at(container, 'name'));
      if (names.has(name)) causes.push(duplicate([...path, field, i, 'name'], name));
      names.add(name);
      causes.push(...checkContainer([...path, field, i], objectOf(container), volumes));
    });
  }
  const { restartPolicy, dnsPolicy, nodeName } = spec;
  if (restartPolicy !== undefined && !RESTART_POLICIES.includes(stringOf(restartPolicy))) {
    causes.push(unsupported([...path, 'restartPolicy'], restartPolicy, RESTART_POLICIES));
  }
  if (dnsPolicy !== undefined && !DNS_POLICIES.includes(stringOf(dnsPolicy)))
    causes.push(unsupported([...path, 'dnsPolicy'], dnsPolicy, DNS_POLICIES));
  if (nodeName !== undefined && nodeName !== '' && typeof nodeName !== 'string')
    causes.push(invalid([...path, 'nodeName'], nodeName, 'must be a name'));
  return causes;
}

const RESTART_POLICIES = ['Always', 'OnFailure', 'Never'];
const DNS_POLICIES = ['ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None'];
const PULL_POLICIES = ['Always', 'IfNotPresent', 'Never'];
const PROTOCOLS = ['SCTP', 'TCP', 'UDP'];
const HANDLERS = ['exec', 'httpGet', 'tcpSocket', 'grpc'];

function checkContainer(path: Path, container: JsonObject, volumes: ReadonlySet<string>): FieldCause[] {
  const causes: FieldCause[] = [];
  const { name, image, imagePullPolicy } = container;
  if (typeof name === 'string' && name !== '' && !isLabel(name)) {
    causes.push(
      invalid(
        [...path, 'name'],
        name,
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
      ),
    );
  }
  if (image === undefined || image === '') causes.push(required(...path, 'image'));
  else if (typeof image === 'string' && image !== image.trim())
    causes.push(invalid([...path, 'image'], image, 'must not have leading or trailing whitespace'));
  if (imagePullPolicy !== undefined && !PULL_POLICIES.includes(stringOf(imagePullPolicy))) {
    causes.push(unsupported([...path, 'imagePullPolicy'], imagePullPolicy, PULL_POLICIES));
  }
  const portNames = new Set<string>();
  arrayOf(container.ports).forEach((port, i) => {
    const { containerPort, hostPort, name: portName, protocol } = objectOf(port);
    if (!isPort(containerPort))
      causes.push(invalid([...path, 'ports', i, 'containerPort'], containerPort, 'must be between 1 and 65535, inclusive'));
    if (hostPort !== undefined && hostPort !== 0 && !isPort(hostPort))
      causes.push(invalid([...path, 'ports', i, 'hostPort'], hostPort, 'must be between 1 and 65535, inclusive'));
    if (protocol !== undefined && !PROTOCOLS.includes(stringOf(protocol)))
      causes.push(unsupported([...path, 'ports', i, 'protocol'], protocol, PROTOCOLS));
    if (typeof portName !== 'string') return;
    if (!isPortName(portName))
      causes.push(
        invalid(
          [...path, 'ports', i, 'name'],
          portName,
          "must be no more than 15 lower case alphanumeric characters or '-', at least one of them a letter",
        ),
      );
    if (portNames.has(portName)) causes.push(duplicate([...path, 'ports', i, 'name'], portName));
    portNames.add(portName);
  });
  arrayOf(container.env).forEach((variable, i) => {
    const { name: variableName, value, valueFrom } = objectOf(variable);
    if (typeof variableName === 'string' && !/^[ -<>-~]+$/.test(variableName))
      causes.push(
        invalid(
          [...path, 'env', i, 'name'],
          variableName,
          "a valid environment variable name must consist of printable characters without '='",
        ),
      );
    if (value !== undefined && value !== '' && valueFrom !== undefined)
      causes.push(invalid([...path, 'env', i, 'valueFrom'], valueFrom, 'may not be specified when `value` is not empty'));
  });
  const mounts = new Set<string>();
  arrayOf(container.volumeMounts).forEach((mount, i) => {
    const { name: volume, mountPath } = objectOf(mount);
    if (typeof volume === 'string' && volume !== '' && !volumes.has(volume)) {
      causes.push({
        field: joined(path, 'volumeMounts', i, 'name'),
        reason: 'FieldValueInvalid',
        message: `Not found: ${JSON.stringify(volume)}`,
      });
    }
    if (typeof mountPath !== 'string') return;
    if (mounts.has(mountPath)) causes.push(duplicate([...path, 'volumeMounts', i, 'mountPath'], mountPath));
    mounts.add(mountPath);
  });
  for (const probe of ['livenessProbe', 'readinessProbe', 'startupProbe']) causes.push(...checkProbe([...path, probe], container[probe]));
  return causes;
}

function checkProbe(path: Path, probe: unknown): FieldCause[] {
  if (!isObject(probe)) return [];
  const causes: FieldCause[] = [];
  const handlers = HANDLERS.filter((handler) => probe[handler] !== undefined);
  if (handlers.length === 0) causes.push({ ...required(...path), message: 'Required value: must specify a handler type' });
  if (handlers.length > 1) causes.push(forbidden([...path, handlers[1] ?? ''], 'may not specify more than 1 handler type'));
  for (const handler of ['httpGet', 'tcpSocket']) {
    const port = at(probe, handler, 'port');
    if (typeof port === 'number' && !isPort(port))
      causes.push(invalid([...path, handler, 'port'], port, 'must be between 1 and 65535, inclusive'));
    if (typeof port === 'string' && !isPortName(port)) causes.push(invalid([...path, handler, 'port'], port, 'must be the name of a port'));
  }
  for (const field of ['initialDelaySeconds', 'timeoutSeconds', 'periodSeconds', 'successThreshold', 'failureThreshold']) {
    const value = probe[field];
    if (typeof value === 'number' && value < 0) causes.push(invalid([...path, field], value, 'must be greater than or equal to 0'));
  }
  return causes;
}

/** Of a pod's spec only images, tolerations, gates and the deadline may change. */
function checkPodUpdate(spec: JsonObject, old: JsonObject): FieldCause[] {
  if (old.nodeName !== undefined && old.nodeName !== '' && spec.nodeName !== old.nodeName) {
    return [forbidden(['spec', 'nodeName'], 'a pod stays on its node')];
  }
  if (equalDeep(fixedPart(spec), fixedPart(old))) return [];
  return [
    forbidden(
      ['spec'],
      'pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.terminationGracePeriodSeconds` or `spec.tolerations`',
    ),
  ];
}

function fixedPart(spec: JsonObject): JsonObject {
  const {
    activeDeadlineSeconds: _a,
    terminationGracePeriodSeconds: _t,
    tolerations: _o,
    nodeName: _n,
    schedulingGates: _g,
    ephemeralContainers: _e,
    ...rest
  } = cloneDeep(spec);
  for (const container of containers(rest)) {
    delete container.image;
    delete container.imagePullPolicy;
  }
  return rest;
}

/** What the ServiceAccount admission plugin does: the account must be there, and its token is mounted. */
function useServiceAccount(pod: KubeObject, spec: JsonObject, context: KindContext): void {
  const name = stringOf(spec.serviceAccountName) || 'default';
  spec.serviceAccountName = name;
  spec.serviceAccount = name;
  const namespace = pod.metadata.namespace ?? 'default';
  const account = context.find('ServiceAccount', name, namespace);
  if (!account) {
    throw ApiError.forbidden(
      { group: '', plural: 'pods', kind: 'Pod' },
      pod.metadata.name,
      `error looking up service account ${namespace}/${name}: serviceaccount "${name}" not found`,
    );
  }
  const automount = spec.automountServiceAccountToken ?? account.automountServiceAccountToken;
  if (automount === false) return;
  const wanting = containers(spec).filter(
    (container) => !arrayOf(container.volumeMounts).some((mount) => at(mount, 'mountPath') === TOKEN_MOUNT),
  );
  if (wanting.length === 0) return;
  const suffix = Math.floor(context.random() * 36 ** 5)
    .toString(36)
    .padStart(5, '0');
  const volume = `kube-api-access-${suffix}`;
  for (const container of wanting) {
    container.volumeMounts = [...arrayOf(container.volumeMounts), { name: volume, readOnly: true, mountPath: TOKEN_MOUNT }];
  }
  spec.volumes = [
    ...arrayOf(spec.volumes),
    {
      name: volume,
      projected: {
        defaultMode: 420,
        sources: [
          { serviceAccountToken: { expirationSeconds: TOKEN_SECONDS, path: 'token' } },
          { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
          { downwardAPI: { items: [{ path: 'namespace', fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } }] } },
        ],
      },
    },
  ];
}

function qosClass(spec: JsonObject): string {
  let guaranteed = true;
  let any = false;
  for (const container of containers(spec)) {
    const limits = objectOf(at(container, 'resources', 'limits'));
    const requests = objectOf(at(container, 'resources', 'requests'));
    if (Object.keys(limits).length + Object.keys(requests).length > 0) any = true;
    for (const resource of ['cpu', 'memory'])
      if (limits[resource] === undefined || (requests[resource] ?? limits[resource]) !== limits[resource]) guaranteed = false;
  }
  return any ? (guaranteed ? 'Guaranteed' : 'Burstable') : 'BestEffort';
}

const containers = (spec: JsonObject): JsonObject[] => [...arrayOf(spec.initContainers), ...arrayOf(spec.containers)].filter(isObject);

const joined = (path: Path, ...more: (string | number)[]): string => invalid([...path, ...more], '', '').field;
