/** Whether two objects are seen from a namespace both: what only one of them is exported to, nobody confuses. */
import { isExported } from '../model/istio-values.ts';
import { at, texts } from '../model/objects.ts';
import type { AnalyzedObject } from './object-set.ts';

// Stands for the namespaces that nobody names.
const ELSEWHERE = '\u0000elsewhere';

export function areSeenTogether(a: AnalyzedObject, b: AnalyzedObject): boolean {
  const [first, second] = [texts(at(a.object, 'spec', 'exportTo')), texts(at(b.object, 'spec', 'exportTo'))];
  const named = [...first, ...second].filter((name) => name !== '*' && name !== '.');
  const namespaces = [...named, a.origin.namespace, b.origin.namespace, ELSEWHERE];
  return namespaces.some((to) => isExported(first, a.origin.namespace, to) && isExported(second, b.origin.namespace, to));
}
