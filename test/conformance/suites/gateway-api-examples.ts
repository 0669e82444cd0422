/** Objects that every API server with the Gateway API must accept. */
import { examplesBelow, judge } from '../../support/example-manifests.ts';
import type { Suite } from '../suite.ts';

const folder = 'gateway-api/examples';

export const suite: Suite = {
  suite: folder,
  run: (cases) =>
    judge(
      examplesBelow(cases.fixture(folder), () => false),
      cases,
      [],
    ),
};
