/** Certificates by name: only what is referred to is asked for, and what cannot be read disturbs nothing else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KubeApiError, type KubeObject, type ListPage, type Query } from '../../../common/client/kube-api.ts';
import type { WatchableApi } from '../../../common/client/kube-watch.ts';
import { CertificateWatch } from '../../../istiod-lite/kube/certificate-watch.ts';
import type { FoundCertificates } from '../../../istiod-lite/model/certificate-sources.ts';
import { testAuthority } from '../../support/certificates.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { recordingLog } from '../../support/recording-log.ts';

const { root } = testAuthority();

test('each certificate is read by its name, as long as something refers to it', async () => {
  const asked: string[] = [];
  const objects = new Map<string, KubeObject>([
    ['configmaps ca', { metadata: { name: 'ca', namespace: 'shop', uid: 'u', resourceVersion: '1' }, data: { 'ca.crt': root } }],
  ]);
  const stop = new AbortController();
  const api: WatchableApi = {
    async listPage<T>(path: string, { fieldSelector = '' }: Query = {}): Promise<ListPage<T>> {
      const plural = path.slice(path.lastIndexOf('/') + 1);
      const name = String(fieldSelector).replace('metadata.name=', '');
      asked.push(`${path} ${name}`);
      if (plural === 'secrets') throw new KubeApiError(403, 'Forbidden', 'secrets is forbidden');
      const found = objects.get(`${plural} ${name}`);
      return { items: found ? [structuredClone(found)] : [], resourceVersion: '1', continue: '' } as ListPage<unknown> as ListPage<T>;
    },
    watch: (_path, _query, _onEvent, signal) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason));
      }),
  };
  const seen = new Map<string, FoundCertificates | undefined>();
  const log = recordingLog();
  const watch = new CertificateWatch({
    api,
    clock: new FakeClock(),
    random: () => 0,
    log,
    signal: stop.signal,
    changed: (source, found) => void seen.set(source, found),
  });
  watch.want(new Set(['ConfigMap shop/ca', 'ConfigMap shop/none', 'Secret shop/client']));
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(seen.get('ConfigMap shop/ca')?.roots, root);
  assert.match(seen.get('ConfigMap shop/none')?.problem ?? '', /there is no ConfigMap shop\/none/);
  assert.equal(seen.has('Secret shop/client'), false);
  assert.deepEqual([...new Set(asked)].sort(), [
    '/api/v1/namespaces/shop/configmaps ca',
    '/api/v1/namespaces/shop/configmaps none',
    '/api/v1/namespaces/shop/secrets client',
  ]);
  watch.want(new Set());
  assert.equal(seen.get('ConfigMap shop/ca'), undefined);
  stop.abort(new Error('over'));
});
