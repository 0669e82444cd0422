/** Kinds of Istio that nothing here carries out: each object of them is named, so that nobody relies on it. */
import * as names from '../model/names.ts';
import { at, textMap } from '../model/objects.ts';
import { whyUnenforced } from '../model/unenforced-kinds.ts';
import type { ObjectCheck, SetCheck } from './analyzer.ts';
import { message } from './messages.ts';
import { selects } from './workloads.ts';

export const kinds: ObjectCheck = {
  name: 'kind.Unenforced',
  doc: 'objects of kinds that Warren does not carry out: EnvoyFilter, WasmPlugin, TrafficExtension, Sidecar, ProxyConfig, Istio’s Gateway, WorkloadGroup',
  *check({ kind, group, origin }) {
    const why = whyUnenforced[`${kind}.${group}`];
    if (why !== undefined) yield message('unenforcedKind', origin, `${kind} is not enforced: ${why}`);
  },
};

export const sidecars: SetCheck = {
  name: 'sidecar.Ineffective',
  doc: 'Sidecar resources for pods of the mesh, which have no sidecar',
  *check({ set, workloads }) {
    for (const { origin, object } of set.of('Sidecar')) {
      const namespace = set.find('Namespace', origin.namespace);
      const selector = textMap(at(object, 'spec', 'workloadSelector', 'labels'));
      const chosen = workloads.filter((one) => one.namespace === origin.namespace && selects(selector, one.labels));
      const labels = textMap(at(namespace?.object, 'metadata', 'labels'));
      // Beside an Istio that injects, its sidecars have the first word.
      const injected = labels['istio-injection'] === 'enabled' || labels[names.REVISION] !== undefined;
      const whole = labels[names.DATAPLANE_MODE] === 'ambient' && !injected;
      const ambient = Object.keys(selector).length === 0 ? whole : chosen.length > 0 && chosen.every(({ inMesh }) => inMesh);
      if (ambient) yield message('ineffective', origin, 'the pods that it is for are in the ambient mesh and have no sidecar');
    }
  },
};
