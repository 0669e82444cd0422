/**
 * Makes the structural schemas of the built-in kinds (`*.jsonl` beside this file) from the type declarations of the packages that we depend
 * on: field names, types, which fields are required. What declarations cannot say (merge keys, atomic lists and maps, defaults) is in
 * `annotations.ts` and added when the schemas are loaded. Run after an update of those packages: `scripts/node playground/apiserver/schemas/generate.ts`.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join, resolve } from 'node:path';
import type { Schema } from './schema.ts';

type Definitions = Record<string, Schema>;

const require = createRequire(import.meta.url);
const here = import.meta.dirname;
const modules = resolve(dirname(require.resolve('@kubernetes/client-node/package.json')), '../..');

const CORE_ROOTS = `V1Pod V1Service V1Endpoints V1Node V1Namespace V1ConfigMap V1Secret V1ServiceAccount CoreV1Event V1PersistentVolumeClaim
  V1PersistentVolume V1ResourceQuota V1LimitRange V1ReplicationController V1PodTemplate V1Deployment V1ReplicaSet V1DaemonSet V1StatefulSet
  V1ControllerRevision V1Job V1CronJob V2HorizontalPodAutoscaler V1PodDisruptionBudget V1EndpointSlice V1Lease EventsV1Event V1NetworkPolicy
  V1Ingress V1IngressClass V1Role V1RoleBinding V1ClusterRole V1ClusterRoleBinding V1ValidatingWebhookConfiguration
  V1MutatingWebhookConfiguration V1ValidatingAdmissionPolicy V1ValidatingAdmissionPolicyBinding V1CustomResourceDefinition V1PriorityClass
  V1StorageClass V1TokenReview AuthenticationV1TokenRequest V1SelfSubjectReview V1SubjectAccessReview V1SelfSubjectAccessReview
  V1LocalSubjectAccessReview V1SelfSubjectRulesReview V1Scale V1RuntimeClass`.split(/\s+/);

const GATEWAY_ROOTS = `gateway.networking.k8s.io/v1/: GatewayClass Gateway HTTPRoute GRPCRoute TLSRoute ReferenceGrant BackendTLSPolicy ListenerSet
  gateway.networking.k8s.io/v1beta1/: GatewayClass Gateway HTTPRoute ReferenceGrant
  gateway.networking.k8s.io/v1alpha2/: GRPCRoute ReferenceGrant TCPRoute TLSRoute UDPRoute
  gateway.networking.k8s.io/v1alpha3/: BackendTLSPolicy TLSRoute
  gateway.networking.x-k8s.io/v1alpha1/: XBackendTrafficPolicy XMesh`;

const ISTIO_ROOTS = `networking.istio.io/v1/: DestinationRule Gateway ServiceEntry Sidecar VirtualService WorkloadEntry WorkloadGroup
  networking.istio.io/v1beta1/: DestinationRule Gateway ProxyConfig ServiceEntry Sidecar VirtualService WorkloadEntry WorkloadGroup
  networking.istio.io/v1alpha3/: DestinationRule EnvoyFilter Gateway ServiceEntry Sidecar VirtualService WorkloadEntry WorkloadGroup
  security.istio.io/v1/: AuthorizationPolicy PeerAuthentication RequestAuthentication
  security.istio.io/v1beta1/: AuthorizationPolicy PeerAuthentication RequestAuthentication
  telemetry.istio.io/v1/: Telemetry
  telemetry.istio.io/v1alpha1/: Telemetry
  extensions.istio.io/v1alpha1/: WasmPlugin`;

function write(file: string, definitions: Definitions): void {
  const lines = Object.entries(definitions)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map((entry) => `${JSON.stringify(entry)}\n`);
  writeFileSync(join(here, file), lines.join(''));
}

function coreDefinitions(): Definitions {
  const folder = join(modules, '@kubernetes/client-node/dist/gen/models');
  return closure(CORE_ROOTS, (name) => {
    if (name === 'IntOrString') return { 'x-kubernetes-int-or-string': true };
    const fields = [
      ...readFileSync(join(folder, `${name}.js`), 'utf8').matchAll(
        /"name": "([^"]+)",\s+"baseName": "([^"]+)",\s+"type": "[^"]+",\s+"format": "([^"]*)"/g,
      ),
    ];
    const parser = new TypeParser(
      readFileSync(join(folder, `${name}.d.ts`), 'utf8'),
      (reference) => reference,
      () => ({}),
    );
    const schema = parser.declaration(name);
    // Names that are words of TypeScript are written differently there: `_from` is `from`.
    const jsonNames = new Map(fields.map(([, own = '', json = '']) => [own, json]));
    const renamed = (field: string): string => jsonNames.get(field) ?? field;
    if (schema.properties)
      schema.properties = Object.fromEntries(Object.entries(schema.properties).map(([field, inner]) => [renamed(field), inner]));
    if (schema.required) schema.required = schema.required.map(renamed);
    for (const [, , field = '', format] of fields) {
      const property = schema.properties?.[field];
      if (!format || !property || property.$ref) continue;
      const target = property.items ?? property;
      if (target.type === 'number' && format.startsWith('int')) target.type = 'integer';
      if (format !== 'double') target.format = format;
    }
    return schema;
  });
}

function modelDefinitions(packageName: string, roots: string): Definitions {
  const root = join(modules, packageName);
  const names = roots.split('\n').flatMap((line) => {
    const [folder = '', kinds = ''] = line.trim().split(': ');
    return kinds.split(' ').map((kind) => `${folder}${kind}`);
  });
  const read = (name: string): Schema => {
    // ObjectMeta, LabelSelector and Condition are those of kubernetes.jsonl.
    if (name.startsWith('@kubernetes-models/apimachinery/')) return { $ref: `V1${basename(name)}` };
    const file = join(root, `${name}.d.ts`);
    const text = readFileSync(file, 'utf8');
    const imports = new Map<string, string>();
    for (const [, list = '', path = ''] of text.matchAll(/import \{ ([^}]+) \} from "([^"]+)";/g)) {
      const target = path.startsWith('.') ? join(dirname(name), path.replace(/\.js$/, '')) : path;
      for (const item of list.split(', ')) imports.set(item.split(' as ').at(-1) ?? item, target);
    }
    return new TypeParser(text, (reference) => imports.get(reference) ?? reference, read).declaration(`I${basename(name)}`);
  };
  return closure(names, read);
}

/** Reads definitions from the roots on, following every $ref. */
function closure(roots: readonly string[], read: (name: string) => Schema): Definitions {
  const definitions: Definitions = {};
  const queue = [...roots];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (definitions[name]) continue;
    const schema = read(name);
    definitions[name] = schema;
    if (!name.startsWith('@')) queue.push(...references(schema));
  }
  return definitions;
}

function references(schema: Schema): string[] {
  const inner = [...Object.values(schema.properties ?? {}), schema.items, schema.additionalProperties].filter((s) => typeof s === 'object');
  return [...(schema.$ref ? [schema.$ref] : []), ...inner.flatMap(references)];
}

function mergeObjects(a: Schema, b: Schema): Schema {
  const required = [...new Set([...(a.required ?? []), ...(b.required ?? [])])];
  const { required: _a, 'x-kubernetes-preserve-unknown-fields': openA, ...restA } = a;
  const { required: _b, 'x-kubernetes-preserve-unknown-fields': openB, ...restB } = b;
  const properties = { ...a.properties, ...b.properties };
  const merged: Schema = { ...restA, ...restB };
  if (Object.keys(properties).length > 0) merged.properties = properties;
  else if (openA && openB) merged['x-kubernetes-preserve-unknown-fields'] = true;
  if (required.length > 0) merged.required = required;
  return merged;
}

/** A parser for the part of TypeScript's type syntax that generated declaration files use. */
class TypeParser {
  readonly #tokens: string[];
  readonly #resolve: (reference: string) => string;
  readonly #read: (name: string) => Schema;
  #at = 0;

  /** @param read the definition of a parent interface, whose fields are copied */
  constructor(text: string, resolveReference: (reference: string) => string, read: (name: string) => Schema) {
    this.#read = read;
    const code = text.replace(/\/\*[\s\S]*?\*\//g, '');
    this.#tokens = code.match(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[A-Za-z_$][\w$]*|-?\d+(?:\.\d+)?|[^\s]/g) ?? [];
    this.#resolve = resolveReference;
  }

  declaration(name: string): Schema {
    for (let i = 0; i < this.#tokens.length - 1; i++) {
      const word = this.#tokens[i];
      if ((word !== 'interface' && word !== 'type' && word !== 'class') || this.#tokens[i + 1] !== name) continue;
      this.#at = i + 2;
      if (word === 'type') {
        this.#expect('=');
        return this.#union();
      }
      const embedded: string[] = [];
      while (this.#tokens[this.#at] !== '{') {
        const parent = this.#tokens[this.#at++] ?? '';
        if (/^I[A-Z]/.test(parent)) embedded.push(this.#resolve(parent));
      }
      const own = this.#members();
      return embedded.reduce((schema, parent) => mergeObjects(this.#read(parent), schema), own);
    }
    throw new Error(`no declaration of ${name}`);
  }

  #union(): Schema {
    const options: (Schema | string | null)[] = [];
    if (this.#tokens[this.#at] === '|') this.#at++;
    do options.push(this.#intersection());
    while (this.#take('|'));
    const literals = options.filter((option) => typeof option === 'string');
    const schemas = options.filter((option): option is Schema => typeof option === 'object' && option !== null);
    if (literals.length > 0) return { type: 'string', enum: literals };
    if (schemas.every((schema) => schema.type === 'number')) return { type: 'number' };
    const types = new Set(schemas.map((schema) => schema.type));
    if (types.size === 2 && types.has('string') && types.has('number')) return { 'x-kubernetes-int-or-string': true };
    // Which of the alternatives holds is the validator's matter; the structure is all of their fields.
    return schemas.reduce((a, b) => {
      const { required: _, ...merged } = mergeObjects(a, b);
      return merged;
    });
  }

  #intersection(): Schema | string | null {
    let result = this.#single();
    while (this.#take('&')) {
      const other = this.#single();
      if (typeof result === 'object' && result && typeof other === 'object' && other) result = mergeObjects(result, other);
    }
    return result;
  }

  #single(): Schema | string | null {
    const token = this.#tokens[this.#at] ?? '';
    let result: Schema | string | null;
    if (token === '{') result = this.#members();
    else if (this.#take('(')) {
      result = this.#union();
      this.#expect(')');
    } else {
      this.#at++;
      if (/^["']/.test(token)) result = token.slice(1, -1);
      else if (token === 'string' || token === 'number' || token === 'boolean') result = { type: token };
      else if (/^-?\d/.test(token)) result = { type: 'number' };
      else if (token === 'null' || token === 'undefined') result = null;
      else if (token === 'Date' || token === 'V1MicroTime') result = { type: 'string', format: 'date-time' };
      else if (token === 'any' || token === 'unknown' || token === 'object') result = { 'x-kubernetes-preserve-unknown-fields': true };
      else if (token === 'Array') {
        this.#expect('<');
        result = { type: 'array', items: this.#union() };
        this.#expect('>');
      } else if (token === 'Exclude') {
        this.#expect('<');
        result = this.#union();
        this.#expect(',');
        this.#union();
        this.#expect('>');
      } else result = { $ref: this.#resolve(token) };
    }
    while (this.#tokens[this.#at] === '[' && this.#tokens[this.#at + 1] === ']') {
      this.#at += 2;
      result = { type: 'array', items: typeof result === 'object' && result !== null ? result : {} };
    }
    return result;
  }

  #members(): Schema {
    const schema: Schema = { type: 'object' };
    const required: string[] = [];
    this.#expect('{');
    while (!this.#take('}')) {
      const token = this.#tokens[this.#at++] ?? '';
      if (token === '[') {
        while (this.#tokens[this.#at] !== ']') this.#at++;
        this.#expect(']');
        this.#expect(':');
        schema.additionalProperties = this.#union();
      } else if (/^["']/.test(token)) {
        const field = token.slice(1, -1);
        if (!this.#take('?')) required.push(field);
        this.#expect(':');
        schema.properties ??= {};
        schema.properties[field] = this.#union();
      } else if (token === 'static') {
        // The fields are over: what follows are the class's own constants.
        break;
      } else throw new Error(`unexpected ${token}`);
      this.#take(';');
    }
    if (required.length > 0) schema.required = required;
    if (!schema.properties && schema.additionalProperties === undefined) schema['x-kubernetes-preserve-unknown-fields'] = true;
    return schema;
  }

  #take(token: string): boolean {
    if (this.#tokens[this.#at] !== token) return false;
    this.#at++;
    return true;
  }

  #expect(token: string): void {
    if (!this.#take(token)) throw new Error(`expected ${token}, found ${this.#tokens.slice(this.#at, this.#at + 5).join(' ')}`);
  }
}

write('kubernetes.jsonl', coreDefinitions());
write('gateway-api.jsonl', modelDefinitions('@kubernetes-models/gateway-api', GATEWAY_ROOTS));
write('istio.jsonl', modelDefinitions('@kubernetes-models/istio', ISTIO_ROOTS));
