/**
 * The part of a cluster that this control plane looks after, where another one is beside it: namespaces by label, and configuration by the
 * label `istio.io/rev`. What is not in scope is as good as not there: it is not translated, judged or written to. The system and the root
 * namespace are always in it, and a Gateway's revision is for its status to say.
 */
import { load } from 'js-yaml';
import type { Form } from '../../common/base/settings.ts';
import type { KubeObject } from '../../common/client/kube-api.ts';
import * as names from '../model/names.ts';
import { isRecord } from '../model/objects.ts';
import { labelSelectorPicks } from '../model/selectors.ts';
import { allKinds, type KindName } from '../model/watched-kinds.ts';

export type LabelSelector = Readonly<Record<string, unknown>>;

export interface ScopeOptions {
  /** Any of them may pick a namespace; none at all picks every namespace. */
  readonly selectors: readonly LabelSelector[];
  /** Namespaces that are in scope whatever their labels are. */
  readonly always: readonly string[];
  readonly revision: string;
}

/** As `meshConfig.discoverySelectors`. */
export const labelSelectors: Form<readonly LabelSelector[]> = {
  name: 'YAML list of label selectors',
  parse(value) {
    const parsed: unknown = load(value);
    if (!Array.isArray(parsed)) throw new Error('expected a YAML list of {matchLabels, matchExpressions}');
    return parsed.map(readSelector);
  },
};

export class Scope {
  readonly #options: ScopeOptions;
  readonly #namespaces = new Set<string>();

  constructor(options: ScopeOptions) {
    this.#options = options;
  }

  /** Whether it is every namespace. */
  get isWhole(): boolean {
    return this.#options.selectors.length === 0;
  }

  includesNamespace({ metadata: { name = '', labels = {} } }: KubeObject): boolean {
    const { selectors, always } = this.#options;
    return this.isWhole || always.includes(name) || selectors.some((selector) => labelSelectorPicks(selector, labels));
  }

  /** A namespace came into scope, or left it. @returns whether that is another answer than before */
  namespaceChanged(name: string, included: boolean): boolean {
    if (!included) return this.#namespaces.delete(name);
    if (this.#namespaces.has(name)) return false;
    this.#namespaces.add(name);
    return true;
  }

  includes(kind: KindName, object: KubeObject): boolean {
    if (kind === 'Namespace') return this.includesNamespace(object);
    const { namespace, labels = {} } = object.metadata;
    if (allKinds[kind].namespaced && !this.isWhole && !this.#namespaces.has(namespace ?? '')) return false;
    return !isConfiguration(kind) || (labels[names.REVISION] ?? this.#options.revision) === this.#options.revision;
  }

  /** Of any kind, as it comes to the webhook: what is not ours to look after is not ours to refuse. */
  judges(kind: string, object: KubeObject): boolean {
    if (Object.hasOwn(allKinds, kind)) return this.includes(kind as KindName, object);
    return this.isWhole || this.#namespaces.has(object.metadata.namespace ?? '');
  }
}

/** What Istio reads by revision: its own kinds and routes. Pods and Services carry the label for other reasons. */
const isConfiguration = (kind: KindName): boolean =>
  kind !== 'Gateway' &&
  /\.(istio\.io|k8s\.io|dev)\//.test(allKinds[kind].apiVersion) &&
  !allKinds[kind].apiVersion.startsWith('discovery.');

function readSelector(entry: unknown, i: number): LabelSelector {
  const where = `entry ${i + 1}`;
  if (!isRecord(entry)) throw new Error(`${where}: expected {matchLabels, matchExpressions}`);
  for (const [field, value] of Object.entries(entry)) {
    if (field === 'matchLabels' && isRecord(value) && Object.values(value).every((label) => typeof label === 'string')) continue;
    if (field === 'matchExpressions' && Array.isArray(value) && value.every(isExpression)) continue;
    throw new Error(`${where}: ${field} is not what a label selector has there`);
  }
  // `{}` would pick everything, which is what no selector at all is for.
  if (Object.keys(entry).length === 0) throw new Error(`${where} is empty`);
  return entry;
}

function isExpression(value: unknown): boolean {
  if (!isRecord(value) || typeof value.key !== 'string') return false;
  const values = Array.isArray(value.values) ? value.values.length : 0;
  return ['In', 'NotIn'].includes(String(value.operator)) ? values > 0 : ['Exists', 'DoesNotExist'].includes(String(value.operator));
}
