import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CaPage, type CaView, problemsOf, statusText, whyNotAbort, whyNotRotate } from '../../../meshctl/commands/ca.ts';

const root = (serial: string) => ({ subject: 'O=cluster.local', serial, expires: '2036-01-01T00:00:00.000Z' });
const step = (name: string) => ({ step: name, at: '2026-01-02T00:00:00.000Z' });

function view(more: Partial<CaPage['ca']> = {}, behind: string[] = [], ready = true): CaView {
  return {
    replica: 'istiod-1',
    page: {
      ca: {
        source: 'Secret istio-system/istio-ca-secret',
        signer: root('aa'),
        roots: [root('aa')],
        rotation: { phase: 'none', requested: '', next: step('renew'), plan: [step('introduce'), step('switch'), step('retire')] },
        ...more,
      },
      distributed: [
        { configMap: 'istio-ca-root-cert', namespaces: 3, behind },
        { configMap: 'istio-ca-crl', namespaces: 3, behind: [] },
      ],
    },
    proxies: [{ name: 'ztunnel-x', ready }],
  };
}

const rotating = (phase: string) => ({ rotation: { phase, requested: '', next: step('switch'), plan: [] } });

test('a mesh whose roots are everywhere and whose proxies are ready may rotate', () => {
  assert.equal(whyNotRotate([view(), view()]), undefined);
  assert.deepEqual(problemsOf([view()]), []);
  assert.match(
    statusText([view()]),
    /signs\s+O=cluster\.local\s+2036.*\n.*trusted.*\nrotation\s+none under way; next: the root is signed again/s,
  );
});

test('what would cut connections stands in the way, and is named', () => {
  assert.match(whyNotRotate([view({}, ['shop', 'vault'])]) ?? '', /2 namespaces without the current roots: shop, vault/);
  assert.match(whyNotRotate([view({}, [], false)]) ?? '', /proxy ztunnel-x is not ready/);
  assert.match(whyNotRotate([view(), view({ signer: root('bb') })]) ?? '', /different certificates/);
  assert.match(whyNotRotate([view(rotating('introduced'))]) ?? '', /a rotation is under way \(introduced\)/);
});

test('a rotation that one replica knows of is under way, begun or only asked for', () => {
  assert.match(whyNotRotate([view(), view(rotating('introduced'))]) ?? '', /a rotation is under way \(introduced\)/);
  const requested = { rotation: { ...rotating('none').rotation, requested: 'start' } };
  assert.match(whyNotRotate([view(), view(requested)]) ?? '', /a rotation is under way \(requested\)/);
});

test('a CA that the operator brings is not ours to rotate', () => {
  const { rotation: _none, ...brought } = view({ source: '/etc/cacerts', problem: 'none of the roots is trusted' }).page.ca;
  const views = [{ ...view(), page: { ...view().page, ca: brought } }];
  assert.match(whyNotRotate(views) ?? '', /the CA is \/etc\/cacerts: whoever brings it rotates it/);
  assert.match(statusText(views), /problem\s+istiod-1: none of the roots is trusted/);
});

test('where somebody else signs, that is what is shown', () => {
  const ca = { source: 'elsewhere', roots: [] };
  const views = [{ ...view(), page: { ...view().page, ca } }];
  assert.equal(statusText(views), 'CA              elsewhere');
  assert.match(whyNotRotate(views) ?? '', /the CA is elsewhere: whoever brings it rotates it/);
});

test('a rotation can be called off only until the new root signs', () => {
  assert.equal(whyNotAbort([view(rotating('introduced'))]), undefined);
  for (const phase of ['none', 'switched'])
    assert.match(whyNotAbort([view(rotating(phase))]) ?? '', /no rotation that could be called off/);
});
