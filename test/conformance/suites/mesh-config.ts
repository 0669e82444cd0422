/** ztunnel's example of a mesh configuration: its `defaultConfig`, given as PROXY_CONFIG, sets ports and metadata. */
import { load } from 'js-yaml';
import { readZtunnelSettings } from '../../../ztunnel/settings.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite } from '../suite.ts';

const FOLDER = 'ztunnel/src/test_helpers';

interface MeshConfig {
  readonly defaultConfig?: {
    readonly statsPort?: number;
    readonly proxyAdminPort?: number;
    readonly proxyMetadata?: Readonly<Record<string, string>>;
  };
}

export const suite: Suite = {
  suite: FOLDER,
  *run(cases: Cases): Iterable<CaseResult> {
    for (const file of cases.list(FOLDER).filter((name) => /\.ya?ml$/.test(name))) {
      const name = file.replace(/\.ya?ml$/, '');
      yield attempt(name, () => {
        // One line of YAML is JSON; the file itself may be commented.
        const { defaultConfig = {} } = load(cases.read(`${FOLDER}/${file}`)) as MeshConfig;
        const settings = readZtunnelSettings({ PROXY_CONFIG: JSON.stringify(defaultConfig) });
        const plain = Object.entries(defaultConfig.proxyMetadata ?? {}).map(([key, value]) => [key.replace(/^ISTIO_META_/, ''), value]);
        const wanted = {
          statsPort: defaultConfig.statsPort ?? 15020,
          adminPort: defaultConfig.proxyAdminPort ?? 15000,
          metadata: Object.fromEntries(plain),
        };
        const metadata = Object.fromEntries(Object.keys(wanted.metadata).map((key) => [key, settings.metadata[key]]));
        return compare(name, { statsPort: settings.statsPort, adminPort: settings.adminPort, metadata }, wanted, 'settings');
      });
    }
  },
};
