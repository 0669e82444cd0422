/**
 * A waypoint's full job: a client's ztunnel, the waypoint, and the server's ztunnel, mutual TLS and HBONE on both sides, one L7 policy, one
 * route with two weighted backends, metrics and the access log on. Only the waypoint's own processor time counts. Envoy stands in the same
 * place between the same two ztunnels, configured by hand for the same job.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { testAuthority, writeCertificate } from '../../test/support/certificates.ts';
import { HTTP_PORT, type Lab, type Place, type Program } from './lab.ts';
import type { Subject } from './load.ts';
import { buildRelease, nodeOf } from './release.ts';
import { envoyAddress } from './reverse-proxies.ts';

/** Not 15008, where the client's ztunnel listens in the same namespace. */
const WAYPOINT_PORT = 15009;
const SERVICE_IP = '10.96.0.1';
const SERVICE = 'app.example';
const MARK = '1337';
const NAMESPACE = 'shop';

/**
 * @param kind whose waypoint stands between the ztunnels; `none` is the same way without one
 * @param release the folder of the programs as the compiler emits them
 */
export async function meshSubject(name: string, kind: 'ours' | 'envoy' | 'none', lab: Lab, release = buildRelease()): Promise<Subject> {
  const authority = testAuthority();
  const waypointIp = lab.near.ip.replace(/\d+$/, '3');
  lab.exec(lab.near, 'ip', 'address', 'add', `${waypointIp}/24`, 'dev', 'wire');
  lab.exec(lab.near, 'ip', 'route', 'add', `${SERVICE_IP}/32`, 'dev', 'wire');
  const mesh = join(lab.folder, 'mesh.yaml');
  writeFileSync(mesh, meshYaml(lab, kind === 'none' ? undefined : waypointIp));
  const certificate = (account: string): string => {
    const folder = join(lab.folder, account);
    writeCertificate(folder, authority.issue(`spiffe://cluster.local/ns/${NAMESPACE}/sa/${account}`));
    return folder;
  };
  const ztunnel = async (place: Place, account: string): Promise<Program> => {
    const program = lab.start(place, `ztunnel-${account}`, [...nodeOf('ztunnel'), join(release, 'ztunnel/main.js'), 'proxy'], {
      PROXY_MODE: 'dedicated',
      PROXY_WORKLOAD_INFO: `${NAMESPACE}/${account}/${account}`,
      LOCAL_XDS_PATH: mesh,
      XDS_ADDRESS: '',
      CA_ADDRESS: '',
      PACKET_MARK: MARK,
      ENABLE_ORIG_SRC: 'false',
      ZTUNNEL_WORKER_THREADS: '1',
      RUST_LOG: 'warn',
      ISTIO_META_DNS_CAPTURE: 'false',
      CERT_DIR: certificate(account),
    });
    for (const port of [15001, 15008]) await lab.waitForPort(place, port);
    return program;
  };
  await ztunnel(lab.far, 'app');
  await ztunnel(lab.near, 'client');
  const proxies =
    kind === 'none'
      ? []
      : [kind === 'ours' ? startOurs(lab, release, mesh, certificate('waypoint')) : startEnvoy(lab, certificate('waypoint'))];
  if (kind !== 'none') await lab.waitForPort(lab.near, WAYPOINT_PORT);
  lab.exec(lab.near, 'nft', 'add table ip bench; add chain ip bench output { type nat hook output priority -100; }');
  lab.exec(lab.near, 'nft', `add rule ip bench output ip daddr ${SERVICE_IP} meta mark != ${MARK} tcp dport 80 redirect to :15001`);
  const http = { ip: SERVICE_IP, port: 80 };
  return { name, lab, proxies, http, bulk: http };
}

function startOurs(lab: Lab, release: string, mesh: string, certificates: string): Program {
  const routes = join(lab.folder, 'routes.yaml');
  writeFileSync(routes, JSON.stringify(waypointConfiguration()));
  return lab.start(lab.near, 'waypoint', [...nodeOf('waypoint'), join(release, 'waypoint/main.js'), 'proxy', 'waypoint'], {
    LOCAL_XDS_PATH: mesh,
    LOCAL_ROUTES_PATH: routes,
    GATEWAY_NAME: 'waypoint',
    POD_NAME: 'waypoint',
    POD_NAMESPACE: NAMESPACE,
    SERVICE_ACCOUNT: 'waypoint',
    XDS_ADDRESS: '',
    CA_ADDRESS: '',
    CERT_DIR: certificates,
    WARREN_HBONE_PORT: String(WAYPOINT_PORT),
    WARREN_READINESS_PORT: '16021',
    WARREN_STATS_PORT: '16020',
    WARREN_ADMIN_PORT: '16000',
    WARREN_WORKER_THREADS: '1',
    RUST_LOG: 'info',
  });
}

/**
 * One policy that looks at the method and who calls, one route that splits by weight.
 * @param others routes and policies of other services beside them
 */
export function waypointConfiguration(others = 0): object {
  const to = { namespace: NAMESPACE, hostname: SERVICE, port: 80 };
  const names = Array.from({ length: others }, (_, i) => `other-${i}.example`);
  return {
    routes: [
      {
        namespace: NAMESPACE,
        hostname: SERVICE,
        ports: [
          {
            port: 80,
            table: [{ match: { path: { prefix: '/' } }, rule: 0 }],
            rules: [{ name: 'HTTPRoute shop/app', backends: [50, 50].map((weight) => ({ to, weight })) }],
          },
        ],
      },
      ...names.map((hostname) => ({
        namespace: NAMESPACE,
        hostname,
        ports: [
          {
            port: 80,
            table: [{ match: { path: { prefix: '/' } }, rule: 0 }],
            rules: [{ name: `HTTPRoute shop/${hostname}`, backends: [{ to, weight: 1 }] }],
          },
        ],
      })),
    ],
    policies: [
      ...names.map((hostname) => ({
        namespace: NAMESPACE,
        name: hostname,
        action: 'DENY',
        targets: [{ service: `${NAMESPACE}/${hostname}` }],
        rules: [{ to: [{ paths: [{ prefix: '/' }] }] }],
      })),
      {
        namespace: NAMESPACE,
        name: 'get',
        action: 'ALLOW',
        targets: [{ everything: {} }],
        rules: [{ to: [{ methods: [{ exact: 'GET' }] }] }],
      },
    ],
  };
}

function meshYaml({ near, far }: Lab, waypointIp: string | undefined): string {
  const workload = (account: string, ip: string, services = '{}'): string => `
- uid: bench//Pod/${NAMESPACE}/${account}
  name: ${account}
  namespace: ${NAMESPACE}
  trustDomain: cluster.local
  serviceAccount: ${account}
  workloadIps: ["${ip}"]
  protocol: HBONE
  node: ${account}
  workloadName: ${account}
  workloadType: deployment
  canonicalName: ${account}
  canonicalRevision: v1
  services: ${services}`;
  const app = `{ ${NAMESPACE}/${SERVICE}: { 80: ${HTTP_PORT} } }`;
  return `workloads:${workload('client', near.ip)}${waypointIp === undefined ? '' : workload('waypoint', waypointIp)}${workload('app', far.ip, app)}
services:
- name: app
  namespace: ${NAMESPACE}
  hostname: ${SERVICE}
  vips: ["/${SERVICE_IP}"]
  ports: { 80: ${HTTP_PORT} }
  appProtocols: { 80: HTTP11 }
${waypointIp === undefined ? '' : `  waypoint: { destination: "/${waypointIp}", hboneMtlsPort: ${WAYPOINT_PORT} }\n`}`;
}

const TYPE = 'type.googleapis.com/envoy.extensions';
const typed = (name: string, type: string, fields: object = {}): object => ({
  name,
  typed_config: { '@type': `${TYPE}.${type}`, ...fields },
});
const pem = (folder: string, file: string): object => ({ filename: join(folder, file) });

/** HBONE in: HTTP/2 CONNECT over mutual TLS, ended here; the requests inside are routed; HBONE out to the server's ztunnel. */
function startEnvoy(lab: Lab, certificates: string): Program {
  const program = process.env.ENVOY_BIN ?? '';
  const file = join(lab.folder, 'envoy-waypoint.json');
  const tls = {
    alpn_protocols: ['h2'],
    tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
    tls_certificates: [{ certificate_chain: pem(certificates, 'cert-chain.pem'), private_key: pem(certificates, 'key.pem') }],
    validation_context: { trusted_ca: pem(certificates, 'root-cert.pem') },
  };
  const internal = (listener: string): object => ({
    endpoint: { address: { envoy_internal_address: { server_listener_name: listener } } },
  });
  const cluster = (name: string, endpoint: object, more: object = {}): object => ({
    name,
    type: 'STATIC',
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [endpoint] }] },
    ...more,
  });
  const inside = typed('internal', 'transport_sockets.internal_upstream.v3.InternalUpstreamTransport', {
    transport_socket: typed('raw', 'transport_sockets.raw_buffer.v3.RawBuffer'),
  });
  const router = typed('router', 'filters.http.router.v3.Router');
  const manager = (fields: object): object =>
    typed('http', 'filters.network.http_connection_manager.v3.HttpConnectionManager', { stat_prefix: 'bench', ...fields });
  const ended = manager({
    codec_type: 'HTTP2',
    http2_protocol_options: { allow_connect: true },
    route_config: {
      virtual_hosts: [
        {
          name: 'tunnels',
          domains: ['*'],
          routes: [
            {
              match: { connect_matcher: {} },
              route: { cluster: 'requests', upgrade_configs: [{ upgrade_type: 'CONNECT', connect_config: {} }] },
            },
          ],
        },
      ],
    },
    http_filters: [router],
  });
  const requests = manager({
    codec_type: 'AUTO',
    access_log: [typed('log', 'access_loggers.file.v3.FileAccessLog', { path: join(lab.folder, 'envoy-access.log') })],
    route_config: {
      virtual_hosts: [
        {
          name: 'app',
          domains: ['*'],
          routes: [
            {
              match: { prefix: '/' },
              route: { weighted_clusters: { clusters: ['app', 'app-too'].map((name) => ({ name, weight: 50 })) } },
            },
          ],
        },
      ],
    },
    http_filters: [
      typed('rbac', 'filters.http.rbac.v3.RBAC', {
        rules: {
          action: 'ALLOW',
          policies: {
            get: { permissions: [{ header: { name: ':method', string_match: { exact: 'GET' } } }], principals: [{ any: true }] },
          },
        },
      }),
      router,
    ],
  });
  const tunnel = typed('tunnel', 'filters.network.tcp_proxy.v3.TcpProxy', {
    stat_prefix: 'tunnel',
    cluster: 'server',
    tunneling_config: { hostname: `${lab.far.ip}:${HTTP_PORT}` },
  });
  const toServer = cluster(
    'server',
    { endpoint: { address: envoyAddress(lab.far.ip, 15008) } },
    {
      typed_extension_protocol_options: {
        'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
          '@type': `${TYPE}.upstreams.http.v3.HttpProtocolOptions`,
          // No more streams than the peer allows: what Envoy opens before it has read SETTINGS would be refused, and answered 503.
          explicit_http_config: { http2_protocol_options: { max_concurrent_streams: 100 } },
        },
      },
      transport_socket: typed('tls', 'transport_sockets.tls.v3.UpstreamTlsContext', { common_tls_context: tls }),
    },
  );
  const listener = (name: string, filter: object): object => ({ name, internal_listener: {}, filter_chains: [{ filters: [filter] }] });
  writeFileSync(
    file,
    JSON.stringify({
      bootstrap_extensions: [typed('internal', 'bootstrap.internal_listener.v3.InternalListener')],
      static_resources: {
        listeners: [
          {
            name: 'hbone',
            address: envoyAddress('0.0.0.0', WAYPOINT_PORT),
            filter_chains: [
              {
                transport_socket: typed('tls', 'transport_sockets.tls.v3.DownstreamTlsContext', {
                  require_client_certificate: true,
                  common_tls_context: tls,
                }),
                filters: [ended],
              },
            ],
          },
          listener('requests', requests),
          listener('tunnel', tunnel),
        ],
        clusters: [
          cluster('requests', internal('requests'), { transport_socket: inside }),
          ...['app', 'app-too'].map((name) => cluster(name, internal('tunnel'), { transport_socket: inside })),
          toServer,
        ],
      },
    }),
  );
  return lab.start(lab.near, 'envoy-waypoint', [program, '-c', file, '--concurrency', '1', '-l', 'error']);
}
