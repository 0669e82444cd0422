/** `meshctl completion bash|zsh|fish`: scripts that complete commands and flags, made from what the program knows of itself. */
import type { Command } from 'commander';
import { CommandError } from '../command-error.ts';

const SHELLS = ['bash', 'zsh', 'fish'] as const;

export function addCompletion(program: Command): void {
  program
    .command('completion <shell>')
    .description('prints a completion script for bash, zsh or fish')
    .addHelpText(
      'after',
      '\nbash: source <(meshctl completion bash)   zsh: source <(meshctl completion zsh)   fish: meshctl completion fish | source',
    )
    .action((shell: string) => {
      console.log(completionScript(program, shell));
    });
}

interface Word {
  readonly word: string;
  readonly doc: string;
  /** Of a flag: `-n`. */
  readonly short?: string;
  /** A flag whose next word is its value. */
  readonly valued?: boolean;
}

interface Entry {
  /** Words after the program's name: `waypoint apply`. */
  readonly path: string;
  readonly words: readonly Word[];
}

/** @throws {CommandError} for another shell */
export function completionScript(program: Command, shell: string): string {
  const entries = entriesOf(program, '', flagsOf(program));
  switch (shell) {
    case 'bash':
      return bash(entries);
    case 'zsh':
      return `(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }\nautoload -Uz bashcompinit && bashcompinit\n${bash(entries)}`;
    case 'fish':
      return fish(entries);
    default:
      throw new CommandError(`completion ${shell}: expected ${SHELLS.join(', ')}`);
  }
}

type Words = Entry['words'];

function entriesOf(command: Command, path: string, common: Words): Entry[] {
  const own = command.commands.map((child) => ({ word: child.name(), doc: firstSentence(child.description()) }));
  const flags = path === '' ? [] : flagsOf(command);
  const entry = { path, words: [...own, ...flags, ...common] };
  return [
    entry,
    ...command.commands.flatMap((child) =>
      namesOf(child).flatMap((name) => entriesOf(child, path === '' ? name : `${path} ${name}`, common)),
    ),
  ];
}

const namesOf = (command: Command): string[] => [command.name(), ...command.aliases()];

const flagsOf = (command: Command): Words =>
  command.options
    .filter(({ hidden }) => !hidden)
    .flatMap(({ long, short, required, description }) =>
      long ? [{ word: long, doc: firstSentence(description), ...(short && { short }), valued: required }] : [],
    );

const firstSentence = (text: string): string => (text.split(/[:;.,(]/)[0] ?? '').trim();

function bash(entries: readonly Entry[]): string {
  const cases = entries.map(({ path, words }) => `    "${path}") words="${words.map(({ word }) => word).join(' ')}" ;;`);
  const flags = entries.flatMap(({ words }) => words.filter(({ valued }) => valued === true));
  const valued = [...new Set(flags.flatMap(({ word, short }) => [word, ...(short ? [short] : [])]))].sort().join('|');
  return `# meshctl completion
_meshctl() {
  local word path="" words="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="\${COMP_WORDS[i]}"
    case "$word" in
      # The next word is its value.
      ${valued}) i=$((i + 1)); continue ;;
      -*) continue ;;
    esac
    path="\${path:+$path }$word"
  done
  # Words that are no commands are arguments: what is before them decides.
  while :; do
    case "$path" in
${cases.join('\n')}
    esac
    [ -n "$words" ] || [ -z "$path" ] && break
    case "$path" in *" "*) path="\${path% *}" ;; *) path="" ;; esac
  done
  # A value is for the user to say; files are what the shell itself offers.
  [ "$i" -gt "$COMP_CWORD" ] && words=""
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _meshctl meshctl`;
}

function fish(entries: readonly Entry[]): string {
  const quoted = (text: string): string => `'${text.replaceAll("'", "\\'")}'`;
  const lines = entries.flatMap(({ path, words }) => {
    const own = words.filter(({ word }) => !word.startsWith('-')).map(({ word }) => word);
    const seen = path.split(' ').map((word) => `__fish_seen_subcommand_from ${word}`);
    const here = path === '' ? '__fish_use_subcommand' : seen.join('; and ');
    // Commands of a command are offered until one is there.
    const next = path === '' || own.length === 0 ? here : `${here}; and not __fish_seen_subcommand_from ${own.join(' ')}`;
    return words.map(({ word, doc, short, valued }) =>
      word.startsWith('--')
        ? `complete -c meshctl -n ${quoted(here)} -l ${word.slice(2)}${short ? ` -s ${short.slice(1)}` : ''}${valued ? ' -r' : ''} -d ${quoted(doc)}`
        : `complete -c meshctl -f -n ${quoted(next)} -a ${word} -d ${quoted(doc)}`,
    );
  });
  return ['# meshctl completion', ...lines].join('\n');
}
