/** Reads of an API server by what the kubeconfigs of playgrounds and of scripts/cluster say (a server, its root, a token), in this process. */
import { readFileSync } from 'node:fs';
import https from 'node:https';
import yaml from 'js-yaml';

export interface ApiAccess {
  readonly server: string;
  readonly ca: Buffer;
  /** The header. */
  readonly authorization: string;
}

export interface ApiReader {
  access(): ApiAccess;
  /** Reads a path (`/api/v1/namespaces/x/pods`) as JSON. @throws with what the server says where it refuses */
  read(path: string): Promise<unknown>;
}

interface Kubeconfig {
  readonly clusters: readonly [{ readonly cluster: { readonly server: string; readonly 'certificate-authority-data': string } }];
  readonly users: readonly [{ readonly user: { readonly token: string } }];
}

const PATIENCE_MS = 30_000;

/** @param kubeconfig a file, which need not be there before the first read */
export function apiReader(kubeconfig: string): ApiReader {
  let known: ApiAccess | undefined;
  const access = (): ApiAccess => {
    known ??= accessOf(yaml.load(readFileSync(kubeconfig, 'utf8')) as Kubeconfig);
    return known;
  };
  return { access, read: (path) => get(access(), path) };
}

const accessOf = ({ clusters: [{ cluster }], users: [{ user }] }: Kubeconfig): ApiAccess => ({
  server: cluster.server,
  ca: Buffer.from(cluster['certificate-authority-data'], 'base64'),
  authorization: `Bearer ${user.token}`,
});

function get({ server, ca, authorization }: ApiAccess, path: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    // No connection is kept: nothing may be open when a test ends, and a server that has restarted is no failure.
    const options = { agent: false, ca, headers: { authorization, accept: 'application/json' }, timeout: PATIENCE_MS } as const;
    const request = https.get(new URL(path, server), options, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk;
      });
      response.on('error', reject);
      response.on('end', () => {
        if (response.statusCode === 200) resolve(JSON.parse(body));
        else reject(new Error(`GET ${path}: ${response.statusCode} ${body}`));
      });
    });
    request.on('timeout', () => request.destroy(new Error(`GET ${path}: no answer`)));
    request.on('error', reject);
  });
}
