/** Deployments, ReplicaSets, DaemonSets, StatefulSets and Jobs: their pod template, and a selector that matches it and never changes. */
import type { FieldCause } from '../api-error.ts';
import { arrayOf, at, equalDeep, isObject, type JsonObject, objectOf, stringOf } from '../json.ts';
import { labelSelectorMatcher } from '../selectors.ts';
import { type Behaviour, invalid, required, unsupported } from './behaviour.ts';
import { checkLabel, checkSelector } from './names.ts';
import { checkPodSpec, completePodSpec } from './pod.ts';

type Path = readonly (string | number)[];

/** @param options which restart policies the template may have, and whether the kind needs a selector */
export function workloadBehaviour(options: { readonly restartPolicies: readonly string[]; readonly selector: boolean }): Behaviour {
  return {
    create: (object) => complete(objectOf(object.spec)),
    update: (object) => complete(objectOf(object.spec)),
    check(object, old) {
      const spec = objectOf(object.spec);
      const causes = checkTemplate(['spec', 'template'], spec.template, options.restartPolicies);
      if (options.selector) causes.push(...checkWorkloadSelector(spec, old && objectOf(old.spec)));
      for (const field of ['replicas', 'minReadySeconds', 'revisionHistoryLimit']) {
        const value = spec[field];
        if (typeof value === 'number' && value < 0) causes.push(invalid(['spec', field], value, 'must be greater than or equal to 0'));
      }
      const strategy = at(spec, 'strategy', 'type');
      if (strategy !== undefined && strategy !== 'RollingUpdate' && strategy !== 'Recreate') {
        causes.push(unsupported(['spec', 'strategy', 'type'], strategy, ['Recreate', 'RollingUpdate']));
      }
      return causes;
    },
  };
}

export const cronJobBehaviour: Behaviour = {
  check: (object) =>
    checkTemplate(['spec', 'jobTemplate', 'spec', 'template'], at(object, 'spec', 'jobTemplate', 'spec', 'template'), [
      'OnFailure',
      'Never',
    ]),
};

function complete(spec: JsonObject): void {
  const template = objectOf(spec.template);
  if (isObject(template.spec)) completePodSpec(template.spec);
  const strategy = spec.strategy;
  if (isObject(strategy) && strategy.type === 'RollingUpdate') {
    strategy.rollingUpdate = { maxSurge: '25%', maxUnavailable: '25%', ...objectOf(strategy.rollingUpdate) };
  }
}

function checkTemplate(path: Path, template: unknown, restartPolicies: readonly string[]): FieldCause[] {
  const spec = at(template, 'spec');
  if (!isObject(spec)) return [required(...path, 'spec')];
  const causes = checkPodSpec([...path, 'spec'], spec);
  for (const [key, value] of Object.entries(objectOf(at(template, 'metadata', 'labels'))))
    causes.push(...checkLabel([...path, 'metadata', 'labels'], key, value));
  const policy = spec.restartPolicy;
  if (policy !== undefined && !restartPolicies.includes(stringOf(policy)))
    causes.push(unsupported([...path, 'spec', 'restartPolicy'], policy, restartPolicies));
  return causes;
}

function checkWorkloadSelector(spec: JsonObject, old: JsonObject | undefined): FieldCause[] {
  const selector = spec.selector;
  const path = ['spec', 'selector'];
  if (!isObject(selector)) return [required(...path)];
  const causes = checkSelector(path, selector);
  if (causes.length > 0) return causes;
  const empty = Object.keys(objectOf(selector.matchLabels)).length === 0 && arrayOf(selector.matchExpressions).length === 0;
  if (empty) return [invalid(path, selector, 'empty selector is invalid')];
  const labels = objectOf(at(spec, 'template', 'metadata', 'labels')) as Record<string, string>;
  if (!labelSelectorMatcher(selector)(labels))
    causes.push(invalid(['spec', 'template', 'metadata', 'labels'], labels, '`selector` does not match template `labels`'));
  if (old && !equalDeep(old.selector, selector)) causes.push(invalid(path, selector, 'field is immutable'));
  return causes;
}
