/** Well-known proxies as plaintext HTTP/1.1 reverse proxies in front of a lab's server: one worker each, connections kept on both sides. */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HTTP_PORT, type Lab, type Program } from './lab.ts';

/** A single process, so that its processor time is that of the program that was started. */
export function startNginx(lab: Lab, port: number): Program {
  const file = join(lab.folder, 'proxy.conf');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${lab.folder};`).join(' ');
  writeFileSync(
    file,
    `master_process off; daemon off; pid ${lab.folder}/proxy.pid; error_log ${lab.folder}/proxy.log;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; ${temporary}
upstream app { server ${lab.far.ip}:${HTTP_PORT}; keepalive 512; keepalive_requests 1000000000; }
server { listen ${port} backlog=4096;
location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Forwarded-Proto http; } } }\n`,
  );
  return lab.start(lab.near, 'nginx-proxy', ['nginx', '-c', file]);
}

/** Undefined, and said so, where it is not installed. */
export function startHaproxy(lab: Lab, port: number): Program | undefined {
  if (!isInstalled('haproxy')) {
    console.error('haproxy is not installed: left out');
    return undefined;
  }
  const file = join(lab.folder, 'haproxy.cfg');
  writeFileSync(
    file,
    `global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
listen proxy
  bind 127.0.0.1:${port}
  server app ${lab.far.ip}:${HTTP_PORT}\n`,
  );
  return lab.start(lab.near, 'haproxy', ['haproxy', '-db', '-f', file]);
}

/** The program in ENVOY_BIN; undefined without one. */
export function startEnvoy(lab: Lab, port: number): Program | undefined {
  const program = process.env.ENVOY_BIN;
  if (program === undefined || program === '') return undefined;
  const file = join(lab.folder, 'envoy.json');
  const manager = {
    '@type': 'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
    stat_prefix: 'bench',
    route_config: { virtual_hosts: [{ name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster: 'app' } }] }] },
    http_filters: [{ name: 'router', typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router' } }],
  };
  const cluster = {
    name: 'app',
    type: 'STATIC',
    load_assignment: {
      cluster_name: 'app',
      endpoints: [{ lb_endpoints: [{ endpoint: { address: envoyAddress(lab.far.ip, HTTP_PORT) } }] }],
    },
  };
  writeFileSync(
    file,
    JSON.stringify({
      static_resources: {
        listeners: [{ address: envoyAddress('127.0.0.1', port), filter_chains: [{ filters: [{ name: 'http', typed_config: manager }] }] }],
        clusters: [cluster],
      },
    }),
  );
  return lab.start(lab.near, 'envoy', [program, '-c', file, '--concurrency', '1', '-l', 'error']);
}

export const envoyAddress = (ip: string, port: number): object => ({ socket_address: { address: ip, port_value: port } });

export const isInstalled = (program: string): boolean => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
