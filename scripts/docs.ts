/** The pages of docs/ that are made from tables in the code: errors, settings, metrics, and meshctl's commands. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { cniMetrics } from '../cni/metrics.ts';
import { cniSettings } from '../cni/settings.ts';
import { outcomes } from '../common/base/errors.ts';
import type { SettingsTable } from '../common/base/settings.ts';
import { docsLink, messageTypes } from '../istiod-lite/analysis/messages.ts';
import { metricRows } from '../istiod-lite/metrics.ts';
import { settingsTable as istiodSettings } from '../istiod-lite/settings.ts';
import { createProgram } from '../meshctl/program.ts';
import { CONNECTION_LABELS, REQUEST_LABELS, TCP_LABELS, metricFamilies as waypointFamilies } from '../waypoint/metrics.ts';
import { settingsTable as waypointSettings } from '../waypoint/settings.ts';
import { metricFamilies, TRAFFIC_LABELS } from '../ztunnel/metrics.ts';
import { settingsTable as ztunnelSettings } from '../ztunnel/settings.ts';

const NOTE = '<!-- Made by scripts/generate.ts from the tables in the code. Change those. -->';

/** Path and text of each page. */
export function generatedDocs(): [string, string][] {
  return [
    ['docs/errors.md', errorsPage()],
    ['docs/config.md', configPage()],
    ['docs/metrics.md', metricsPage()],
    [ANALYZE_PAGE, withCodes(readFileSync(join(import.meta.dirname, '..', ANALYZE_PAGE), 'utf8'))],
    ...commandPages(),
  ];
}

const ANALYZE_PAGE = 'docs/analyze.md';
const CODES = /(<!-- codes: [^\n]* -->\n)[\s\S]*(<!-- end of codes -->)/;

/** The page with its part that is made from the table of messages. */
function withCodes(text: string): string {
  const types = [...Object.values(messageTypes)].sort((a, b) => (a.code < b.code ? -1 : 1));
  const rows = types.map(({ code, name, level, final }) => [`[${code}](#${code.toLowerCase()})`, name, level, final ? 'refused' : '']);
  const sections = types.map((type) => {
    const link = type.code.startsWith('IST') ? ` [Istio's page](${docsLink(type)})` : '';
    return `### ${type.code}\n\n${type.name}, ${type.level}. ${type.doc}${link}`;
  });
  const made = [table(['code', 'name', 'level', 'admission'], rows), ...sections].join('\n\n');
  return text.replace(CODES, (_, begin, end) => `${begin}\n${made}\n\n${end}`);
}

/** One page for each command of meshctl: what `--help` says, of it and of its own commands. */
function commandPages(): [string, string][] {
  const program = createProgram({});
  program.configureHelp({ ...program.configureHelp(), helpWidth: 100 });
  const help = (command: Command): string => {
    const text: string[] = [];
    command.configureHelp({ ...command.configureHelp(), helpWidth: 100 }).configureOutput({ writeOut: (piece) => void text.push(piece) });
    command.outputHelp();
    return text.join('').trimEnd();
  };
  const section = (command: Command, name: string): string[] => [
    `## ${name}\n\n\`\`\`\n${help(command)}\n\`\`\``,
    ...command.commands.flatMap((child) => section(child, `${name} ${child.name()}`)),
  ];
  const index = program.commands.map((command) => [`[\`meshctl ${command.name()}\`](${command.name()}.md)`, command.description()]);
  return [
    ['docs/cli/README.md', page('meshctl', `\`\`\`\n${help(program)}\n\`\`\``, [table(['command', 'what it does'], index)])],
    ...program.commands.map((command): [string, string] => [
      `docs/cli/${command.name()}.md`,
      page(`meshctl ${command.name()}`, command.description(), [
        ...section(command, `meshctl ${command.name()}`),
        ...example(command.name()),
      ]),
    ]),
  ];
}

/** What it prints in the playground with its shop: recorded, and compared by test/mesh/cli.test.ts. */
function example(name: string): string[] {
  const path = join(import.meta.dirname, `../docs/cli/examples/${name}.txt`);
  return existsSync(path) ? [`## Example\n\n\`\`\`console\n${readFileSync(path, 'utf8').trimEnd()}\n\`\`\``] : [];
}

function errorsPage(): string {
  const rows = Object.entries(outcomes).map(
    ([code, { flag, status, level, doc }]: [string, { flag: string; status?: number; level: string; doc: string }]) => [
      `\`${code}\``,
      `\`${flag}\``,
      status === undefined ? '' : String(status),
      level,
      doc,
    ],
  );
  const intro = [
    'Why a connection or a request was refused or failed. The code is in the access log (`warren.code`), in the metric `warren_refusals_total`, and, for',
    "peers of the mesh, in the answer's header `x-warren-refusal`. The flag is `response_flags` of the `istio_tcp_*` metrics; the status is",
    "what a peer's CONNECT is answered with.",
  ].join('\n');
  return page('Errors', intro, [table(['code', 'flag', 'status', 'level', 'what it means, what to do'], rows)]);
}

function configPage(): string {
  const intro = 'Settings are environment variables. A component reads all of them at its start and reports every bad one at once.';
  const section = (title: string, settings: SettingsTable): string => {
    const rows = Object.values(settings).map(({ env, form, fallback, fallbackText, doc }) => [
      `\`${env}\``,
      form.name,
      code(fallbackText ?? defaultText(fallback)),
      doc,
    ]);
    return `## ${title}\n\n${table(['name', 'form', 'default', 'what it does'], rows)}`;
  };
  return page('Settings', intro, [
    section('ztunnel', ztunnelSettings),
    section('waypoint', waypointSettings),
    section('istiod-lite', istiodSettings),
    section('node agent', cniSettings),
  ]);
}

function defaultText(value: unknown): string {
  if (value === undefined || value === '') return '';
  if (Array.isArray(value)) return value.join(',');
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function metricsPage(): string {
  const intro = [
    'What Prometheus can scrape: ztunnel on port 15020, a waypoint on 15020 (path `/stats/prometheus`, too), istiod-lite and the node agent on',
    "15014, path `/metrics`. Names and labels are Istio's; what starts with `warren_` is ours. Labels of a connection (below as *traffic",
    'labels*), in this order:',
    '',
    TRAFFIC_LABELS.map((label) => `\`${label}\``).join(', '),
    '',
    "A waypoint's are in this order (below as *peer labels*):",
    '',
    CONNECTION_LABELS.map((label) => `\`${label}\``).join(', '),
  ].join('\n');
  const traffic = TRAFFIC_LABELS.join();
  const labels = (names: readonly string[]): string => {
    if (names.join() === traffic) return '*traffic labels*';
    const peers = names === REQUEST_LABELS || names === TCP_LABELS ? CONNECTION_LABELS.length : 0;
    const named = names.slice(peers).map((name) => `\`${name}\``);
    return (peers > 0 ? ['*peer labels*', ...named] : named).join(', ');
  };
  const section = (title: string, rows: readonly { name: string; type: string; labels: readonly string[]; help: string }[]): string =>
    `## ${title}\n\n${table(
      ['name', 'type', 'labels', 'what it counts'],
      rows.map((row) => [`\`${row.name}\``, row.type, labels(row.labels), row.help]),
    )}`;
  return page('Metrics', intro, [
    section('ztunnel', metricFamilies),
    section('waypoint', waypointFamilies),
    section('istiod-lite', Object.values(metricRows)),
    section('node agent', agentRows()),
  ]);
}

/** The node agent's metrics are few and live in prom-client only; what Node says about itself is left out. */
function agentRows(): { name: string; type: string; labels: readonly string[]; help: string }[] {
  interface Registered {
    readonly name: string;
    readonly help: string;
    readonly labelNames?: readonly string[];
    readonly constructor: { readonly name: string };
  }
  const registered = cniMetrics({ enrolled: () => 0, outside: () => 0 }).registry.getMetricsAsArray() as unknown as readonly Registered[];
  return registered
    .filter(({ name }) => !/^(process|nodejs)_/.test(name))
    .map((metric) => ({
      name: metric.name,
      type: metric.constructor.name.toLowerCase(),
      labels: metric.labelNames ?? [],
      help: metric.help,
    }));
}

const code = (text: string): string => (text === '' ? '' : `\`${text}\``);

const page = (title: string, intro: string, parts: readonly string[]): string =>
  `${NOTE}\n\n# ${title}\n\n${intro}\n\n${parts.join('\n\n')}\n`;

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|').replaceAll('\n', ' ')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}
