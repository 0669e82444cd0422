/** Objects that every API server with the Gateway API must refuse. */
import { examplesBelow, judge } from '../../support/example-manifests.ts';
import type { Suite } from '../suite.ts';

const folder = 'gateway-api/hack/invalid-examples';

export const suite: Suite = {
  suite: folder,
  run: (cases) =>
    judge(
      examplesBelow(cases.fixture(folder), () => true),
      cases,
      ['gateway-api/config/crd/experimental'],
    ),
};
