/** Objects of Istio's types with the error that they must get (`_err`), or without one. */
import { examplesBelow, judge } from '../../support/example-manifests.ts';
import type { Suite } from '../suite.ts';

const folder = 'istio/pkg/config/validation/testdata/crds';

export const suite: Suite = {
  suite: folder,
  run: (cases) =>
    judge(
      examplesBelow(cases.fixture(folder), ({ _err }) => _err !== undefined),
      cases,
      ['istio/manifests/charts/base/files/crd-all.gen.yaml'],
    ),
};
