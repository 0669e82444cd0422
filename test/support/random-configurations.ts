/**
 * Configurations made at random, each a namespace of its own, so that many are tried at once over the same pods: services, with and without a
 * waypoint, policies for both tiers, tokens, routes, subsets, faults, ports that are declared to carry bytes. The same seed makes the same ones,
 * but for the key that tokens are signed with.
 */
import { generateKeyPairSync, sign } from 'node:crypto';

export interface Configuration {
  readonly namespace: string;
  /** What `kubectl apply` takes. */
  readonly yaml: string;
  readonly calls: readonly RandomCall[];
}

export interface RandomCall {
  /** `namespace/pod`. */
  readonly caller: string;
  /** `host:port`. */
  readonly target: string;
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** Namespaces r0, r1 and so on; the first ones have a waypoint `wp`. Every pod is its own service account, app and identity. */
export const namespacesOf = (count: number): string[] => Array.from({ length: count }, (_, i) => `r${i}`);

/** The pods, which stay; and one of no mesh. */
export function worldYaml(namespaces: readonly string[], withWaypoint: number): string {
  const pod = (namespace: string, name: string, node: string): string => `
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: ${name}, namespace: ${namespace} }
---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace}, labels: { app: ${name}, pair: "yes" } }
spec:
  nodeName: ${node}
  serviceAccountName: ${name}
  terminationGracePeriodSeconds: 1
  containers: [{ name: echo, image: warren/echo, args: ["--port=8080", "--port=8081"] }]
`;
  // One of them as it is deployed by itself, of two replicas; each replica takes as much to come up as ten pods.
  const small = 'infrastructure: { parametersRef: { group: "", kind: ConfigMap, name: small } }, ';
  const waypoint = (namespace: string, i: number): string => `
---
apiVersion: v1
kind: ConfigMap
metadata: { name: small, namespace: ${namespace} }
data: { deployment: "spec: { replicas: 1 }" }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: wp, namespace: ${namespace} }
spec: { ${i === 0 ? '' : small}gatewayClassName: istio-waypoint, listeners: [{ name: mesh, port: 15008, protocol: HBONE }] }
`;
  return [
    '\n---\napiVersion: v1\nkind: Namespace\nmetadata: { name: plain }\n',
    pod('plain', 'd', 'node1'),
    ...namespaces.flatMap((namespace, i) => [
      `\n---\napiVersion: v1\nkind: Namespace\nmetadata: { name: ${namespace}, labels: { istio.io/dataplane-mode: ambient } }\n`,
      pod(namespace, 'a', 'node1'),
      pod(namespace, 'b', 'node2'),
      i < withWaypoint ? waypoint(namespace, i) : '',
    ]),
  ].join('');
}

const SERVICES: Readonly<Record<string, string>> = { a: '{ app: a }', b: '{ app: b }', both: '{ pair: "yes" }', none: '{ app: nobody }' };

/** @param other the namespace that foreign callers are of @param waypoint whether there is one here */
export function randomConfiguration(random: () => number, namespace: string, other: string, waypoint: boolean): Configuration {
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)] as T;
  const chance = (share: number): boolean => random() < share;
  const times = (most: number): number => Math.floor(random() * (most + 1));
  const objects: string[] = [];
  const bound = new Set<string>();
  for (const [name, selector] of Object.entries(SERVICES)) {
    // A waypoint that nobody has: what is bound to it is refused.
    const uses = waypoint ? (chance(0.7) ? 'wp' : 'none') : chance(0.1) ? 'gone' : 'none';
    if (uses === 'wp') bound.add(name);
    const more = chance(0.2) ? 'tcp-more' : 'more';
    objects.push(`apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: ${namespace}, labels: { istio.io/use-waypoint: ${uses} } }
spec: { selector: ${selector}, ports: [{ name: http, port: 80, targetPort: 8080 }, { name: ${more}, port: 81, targetPort: 8081 }] }`);
  }
  const from = (): string =>
    pick([
      '',
      `from: [{ source: { principals: [cluster.local/ns/${namespace}/sa/a] } }]`,
      `from: [{ source: { principals: ["cluster.local/ns/${namespace}/*"] } }]`,
      `from: [{ source: { namespaces: [${other}] } }]`,
      'from: [{ source: { notPrincipals: ["*"] } }]',
      `from: [{ source: { notNamespaces: [${namespace}] } }]`,
    ]);
  const policy = (name: string, where: string, rules: readonly string[]): void => {
    const parts = [where, `action: ${pick(['ALLOW', 'ALLOW', 'DENY'])}`, `rules: [${rules.map((rule) => `{ ${rule} }`).join(', ')}]`];
    objects.push(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: ${namespace} }
spec: { ${parts.filter((part) => part !== '').join(', ')} }`);
  };
  const ruleOf = (...parts: readonly string[]): string => parts.filter((part) => part !== '').join(', ');
  for (let i = times(2); i > 0; i--) {
    const where = chance(0.6) ? `selector: { matchLabels: { app: ${pick(['a', 'b'])} } }` : '';
    const to = (): string => pick(['', 'to: [{ operation: { ports: ["8080"] } }]', 'to: [{ operation: { notPorts: ["8080"] } }]']);
    policy(
      `l4-${i}`,
      where,
      Array.from({ length: 1 + times(1) }, () => ruleOf(from(), to())),
    );
  }
  if (waypoint) {
    for (let i = times(2); i > 0; i--) {
      const where = pick([
        `targetRefs: [{ kind: Service, group: "", name: ${pick(Object.keys(SERVICES))} }]`,
        'targetRefs: [{ kind: Gateway, group: gateway.networking.k8s.io, name: wp }]',
      ]);
      const to = (): string =>
        pick([
          '',
          'to: [{ operation: { methods: [GET] } }]',
          'to: [{ operation: { paths: ["/x*"] } }]',
          'to: [{ operation: { notPaths: [/x] } }]',
          'to: [{ operation: { hosts: ["a.*"] } }]',
        ]);
      const when = (): string =>
        pick([
          'when: [{ key: "request.auth.claims[role]", values: [clerk] }]',
          '',
          '',
          'when: [{ key: "request.headers[x-tier]", values: [gold] }]',
          'when: [{ key: "request.headers[x-tier]", notValues: [gold] }]',
        ]);
      policy(
        `l7-${i}`,
        where,
        Array.from({ length: 1 + times(1) }, () => ruleOf(chance(0.2) ? BY_TOKEN : from(), to(), when())),
      );
    }
    if (chance(0.5)) objects.push(requestAuthentication(namespace, pick(Object.keys(SERVICES))));
    if (chance(0.7)) objects.push(destinationRule(namespace, pick(['a', 'b'])));
    for (const service of ['a', 'both']) {
      const made = pick(['nothing', 'route', 'virtual']);
      if (made === 'route') objects.push(httpRoute(namespace, service, pick, chance));
      if (made === 'virtual') objects.push(virtualService(namespace, service, pick));
    }
  }
  if (chance(0.2))
    objects.push(`apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: ${namespace} }
spec: { mtls: { mode: STRICT } }`);
  const callers = [`${namespace}/a`, `${namespace}/b`, `${other}/a`, 'plain/d'];
  const calls = callers.flatMap((caller) =>
    Object.keys(SERVICES).map((service): RandomCall => {
      const port = chance(0.7) ? 80 : 81;
      const headers: Record<string, string> = chance(0.4) ? { 'x-tier': pick(['gold', 'tin']) } : {};
      if (chance(0.3)) headers.authorization = `Bearer ${pick(TOKENS)}`;
      return {
        caller,
        target: `${service}.${namespace}:${port}`,
        method: pick(['GET', 'POST']),
        path: pick(['/', '/x', '/x/y', '/z?q=1', '//x']),
        headers,
      };
    }),
  );
  return { namespace, yaml: objects.map((text) => `\n---\n${text}\n`).join(''), calls };
}

/** Of `both` one of its pods, the other one, and none. */
function destinationRule(namespace: string, one: string): string {
  const other = one === 'a' ? 'b' : 'a';
  const subset = (name: string, app: string): string => `{ name: ${name}, labels: { app: ${app} } }`;
  return `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: subsets, namespace: ${namespace} }
spec: { host: both, subsets: [${subset('one', one)}, ${subset('other', other)}, ${subset('nobody', 'nobody')}] }`;
}

const { privateKey, publicKey } = generateKeyPairSync('ed25519');
const BY_TOKEN = 'from: [{ source: { requestPrincipals: ["me/*"] } }]';

function tokenOf(claims: object): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'EdDSA' })}.${part(claims)}`;
  return `${text}.${sign(null, Buffer.from(text), privateKey).toString('base64url')}`;
}

const LATER = 4_000_000_000;
/** Good ones, one that is over, one of somebody else, and what is no token. */
const TOKENS = [
  tokenOf({ iss: 'me', sub: 'ann', role: 'clerk', exp: LATER }),
  tokenOf({ iss: 'me', sub: 'bob', role: 'guest', exp: LATER }),
  tokenOf({ iss: 'me', sub: 'cid', exp: 1 }),
  tokenOf({ iss: 'them', sub: 'ann', exp: LATER }),
  'nonsense',
];

const JWKS = JSON.stringify({ keys: [publicKey.export({ format: 'jwk' })] });

const requestAuthentication = (namespace: string, service: string): string => `apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: { name: tokens, namespace: ${namespace} }
spec: { targetRefs: [{ kind: Service, group: "", name: ${service} }], jwtRules: [{ issuer: me, jwks: '${JWKS}' }] }`;

type Pick = <T>(values: readonly T[]) => T;

function httpRoute(namespace: string, service: string, pick: Pick, chance: (share: number) => boolean): string {
  const match = (): string =>
    pick([
      '',
      'matches: [{ path: { type: PathPrefix, value: /x } }], ',
      'matches: [{ headers: [{ name: x-tier, value: gold }] }], ',
      'matches: [{ method: POST }], ',
    ]);
  const outcome = (): string =>
    pick([
      'backendRefs: [{ name: a, port: 80 }]',
      'backendRefs: [{ name: b, port: 81 }]',
      'backendRefs: [{ name: a, port: 80, weight: 1 }, { name: none, port: 80, weight: 1 }]',
      'backendRefs: [{ name: missing, port: 80 }]',
      'filters: [{ type: RequestRedirect, requestRedirect: { hostname: elsewhere.example, statusCode: 301 } }]',
    ]);
  const rules = [`{ ${match()}${outcome()} }`, ...(chance(0.5) ? [`{ ${match()}${outcome()} }`] : [])];
  return `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: route-${service}, namespace: ${namespace} }
spec: { parentRefs: [{ group: "", kind: Service, name: ${service} }], rules: [${rules.join(', ')}] }`;
}

function virtualService(namespace: string, service: string, pick: Pick): string {
  const special = pick([
    '{ match: [{ uri: { prefix: /x } }], fault: { abort: { httpStatus: 555, percentage: { value: 100 } } }, route: [{ destination: { host: a } }] }',
    '{ match: [{ method: { exact: POST } }], fault: { abort: { httpStatus: 555, percentage: { value: 50 } } }, route: [{ destination: { host: b } }] }',
    '{ match: [{ headers: { x-tier: { exact: gold } } }], directResponse: { status: 418 } }',
    '{ match: [{ uri: { exact: /x } }], redirect: { uri: /y } }',
    '{ match: [{ method: { exact: GET } }], route: [{ destination: { host: both, subset: one } }] }',
    '{ route: [{ destination: { host: both, subset: other }, weight: 50 }, { destination: { host: a }, weight: 50 }] }',
    '{ match: [{ uri: { exact: / } }], route: [{ destination: { host: both, subset: nobody } }] }',
    '{ match: [{ withoutHeaders: { x-tier: { exact: gold } } }], route: [{ destination: { host: none } }] }',
  ]);
  return `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: virtual-${service}, namespace: ${namespace} }
spec: { hosts: [${service}], http: [${special}${pick(['', ', { route: [{ destination: { host: b } }] }'])}] }`;
}
