/** What steps of the story are checked with. */
import { StepFailed } from './narrator.ts';
import type { Shop } from './shop.ts';

export async function mustAnswer(shop: Shop, namespace: string, deployment: string, url: string): Promise<void> {
  const { code, stdout, stderr } = await shop.call(namespace, deployment, url);
  expect(code === 0 && stdout.includes('StatusCode=200'), `${namespace}/${deployment} did not reach ${url}: ${stderr || stdout}`);
}

export function expect(holds: boolean, complaint: string): void {
  if (!holds) throw new StepFailed(complaint);
}
