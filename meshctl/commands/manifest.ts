/** `meshctl manifest generate`: the objects that `install` would apply, for those who apply them otherwise. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { dump } from 'js-yaml';
import { loadSource } from '../install/source.ts';
import type { Connection } from '../terminal.ts';

export interface ManifestOptions extends Connection {
  readonly values: readonly string[];
  readonly set: readonly string[];
  readonly crds: boolean;
  readonly directory?: string;
}

export function manifestGenerate({ systemNamespace, values, set, env, crds, directory }: ManifestOptions): number {
  const { objects, definitions } = loadSource({ namespace: systemNamespace, values, set, env });
  const all = [...(crds ? definitions : []), ...objects];
  if (directory === undefined) {
    console.log(
      all
        .map((object) => yamlOf(object))
        .join('---\n')
        .trimEnd(),
    );
    return 0;
  }
  mkdirSync(directory, { recursive: true });
  // In the order in which they have to be applied.
  for (const [i, object] of all.entries()) {
    const { kind = '', metadata } = object;
    const number = String(i).padStart(3, '0');
    writeFileSync(
      join(directory, `${number}-${kind.toLowerCase()}-${(metadata.name ?? '').replaceAll(/[^\w.-]/g, '_')}.yaml`),
      yamlOf(object),
    );
  }
  console.log(`${all.length} files in ${directory}`);
  return 0;
}

const yamlOf = (object: object): string => dump(object, { lineWidth: -1, noRefs: true });
