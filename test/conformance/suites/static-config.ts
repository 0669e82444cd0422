/** ztunnel's example of a static configuration loads, and the mesh in it decides as its comments say. */
import { readFileSync } from 'node:fs';
import { formatSocketAddress } from '../../../common/base/address.ts';
import { routeOutbound } from '../../../common/decision/outbound.ts';
import { decidePolicy } from '../../../common/decision/policy.ts';
import { staticResources } from '../../../common/state/static-config.ts';
import { MeshStateWriter } from '../../../common/state/writer.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite } from '../suite.ts';

const FOLDER = 'ztunnel/examples';

export const suite: Suite = {
  suite: FOLDER,
  *run(cases: Cases): Iterable<CaseResult> {
    for (const file of cases.list(FOLDER).filter((name) => /\.ya?ml$/.test(name))) {
      const name = file.replace(/\.ya?ml$/, '');
      yield attempt(name, () => {
        const writer = load(readFileSync(cases.fixture(`${FOLDER}/${file}`), 'utf8'));
        const { workloads, services } = writer.stats();
        return compare(name, workloads + services > 0, true, 'loaded anything');
      });
      if (name !== 'localhost') continue;
      yield attempt(`${name}/VIP to HBONE`, () => {
        const view = load(cases.read(`${FOLDER}/${file}`)).view();
        const source = view.workloadByAddress('', '127.0.0.1');
        if (!source) throw new Error('no workload at 127.0.0.1');
        const route = routeOutbound(view, { source, destination: { ip: '127.10.0.1', port: 80 }, network: '', random: () => 0 });
        const actual = 'via' in route && route.via === 'hbone' ? [formatSocketAddress(route.to), route.authority] : route;
        return compare(`${name}/VIP to HBONE`, actual, ['127.0.0.1:15008', '127.0.0.1:8080'], 'route');
      });
      for (const [port, allowed] of [
        [8080, true],
        [9999, false],
      ] as const) {
        yield attempt(`${name}/port ${port}`, () => {
          const view = load(cases.read(`${FOLDER}/${file}`)).view();
          const local = view.workloadByAddress('', '127.0.0.1');
          if (!local) throw new Error('no workload at 127.0.0.1');
          const input = { source: { ip: '127.0.0.1', port: 1 }, identity: undefined, destination: { ip: '127.0.0.1', port } };
          return compare(`${name}/port ${port}`, decidePolicy(view, local, input).allowed, allowed, 'allowed');
        });
      }
    }
  },
};

function load(yaml: string): MeshStateWriter {
  const writer = new MeshStateWriter({ maxBytes: 32 << 20 });
  for (const push of staticResources(yaml)) {
    const [rejected] = writer.apply(push).rejected;
    if (rejected) throw new Error(`${rejected.name}: ${rejected.reason}`);
  }
  return writer;
}
