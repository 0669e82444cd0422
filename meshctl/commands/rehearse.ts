/** `meshctl rehearse`: which of the decisions that the proxies recorded would change, if these objects were applied or deleted. */
import yaml from 'js-yaml';
import picocolors from 'picocolors';
import { Istiod } from '../istiod.ts';
import { durationMs, objectsOf, removalOf } from '../rehearse/candidate.ts';
import { exitOf, type Rehearsal, renderRehearsal, together } from '../rehearse/rehearsal.ts';
import { CommandError, type Connection, checkFormat, clusterError, connect, folded, inColour, widthFor } from '../terminal.ts';

export interface RehearseOptions extends Connection {
  readonly files: readonly string[];
  readonly delete: readonly string[];
  readonly namespace: string;
  readonly since: string;
  readonly output: string;
}

export async function rehearseCommand(options: RehearseOptions): Promise<number> {
  const { files, namespace, output, systemNamespace } = options;
  checkFormat(output);
  const apply = files.flatMap((file) => objectsOf(file, namespace));
  const remove = options.delete.map((text) => removalOf(text, namespace));
  if (apply.length + remove.length === 0) throw new CommandError('nothing to rehearse: give files, or --delete KIND/NAME');
  const sinceMs = Date.now() - durationMs(options.since);
  const api = connect(options);
  let istiod: Istiod | undefined;
  try {
    istiod = await Istiod.open(api, systemNamespace);
    const rehearsal = together(await istiod.postAll<Rehearsal>('/debug/rehearse', { apply, remove, sinceMs }));
    if (output === 'json') console.log(JSON.stringify(rehearsal, undefined, 2));
    else if (output === 'yaml') console.log(yaml.dump(rehearsal).trimEnd());
    else console.log(folded(renderRehearsal(rehearsal, picocolors.createColors(inColour())), widthFor(output)));
    return exitOf(rehearsal);
  } catch (error) {
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    istiod?.close();
    api.close();
  }
}
