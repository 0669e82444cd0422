/** `meshctl policy suggest`: policies for what was seen, as YAML that can be read, rehearsed and applied. */
import yaml from 'js-yaml';
import type { KubeObject } from '../../common/client/kube-api.ts';
import { mergeRows } from '../../common/decision/journal.ts';
import { Istiod } from '../istiod.ts';
import { durationMs } from '../rehearse/candidate.ts';
import { type Suggestion, suggest } from '../suggest/suggest.ts';
import { CommandError, type Connection, clusterError, connect } from '../terminal.ts';

export interface SuggestOptions extends Connection {
  readonly namespace: string;
  readonly since: string;
  readonly open: boolean;
}

export async function suggestCommand(options: SuggestOptions): Promise<number> {
  const { namespace, since, open } = options;
  const sinceMs = Date.now() - durationMs(since);
  const api = connect(options);
  let istiod: Istiod | undefined;
  try {
    istiod = await Istiod.open(api, options.systemNamespace);
    const [{ journals }, pods, services] = await Promise.all([
      istiod.journals({ sinceMs }),
      api.list<KubeObject>(`/api/v1/namespaces/${namespace}/pods`),
      api.list<KubeObject>(`/api/v1/namespaces/${namespace}/services`),
    ]);
    const silent = journals.flatMap(({ proxy, error }) => (error === undefined ? [] : [`${proxy} was not asked: ${error}`]));
    const suggestion = suggest({ namespace, rows: mergeRows(journals.flatMap(({ rows }) => rows)), pods, services, open });
    const notes = [...silent, ...suggestion.notes];
    if (suggestion.policies.length === 0) {
      for (const note of notes) console.error(note);
      console.error(`no call into ${namespace} was seen in the last ${since}`);
      return 1;
    }
    console.log(suggestionText({ ...suggestion, notes }, since));
    return 0;
  } catch (error) {
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    istiod?.close();
    api.close();
  }
}

/** Comments first, so that whoever reviews it sees what it stands on. */
export function suggestionText({ policies, notes }: Suggestion, since: string): string {
  const top = [
    `# What was seen in the last ${since}, and nothing else. Try it first: meshctl rehearse -`,
    ...notes.map((note) => `# ${note}`),
  ];
  const documents = policies.map(({ policy, evidence }) =>
    [...evidence.map((line) => `# ${line}`), yaml.dump(policy, { noRefs: true }).trimEnd()].join('\n'),
  );
  return [top.join('\n'), ...documents].join('\n---\n');
}
