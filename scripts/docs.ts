/** The pages of docs/ that are made from tables in the code: errors, settings, metrics. */
import { outcomes } from '../common/base/errors.ts';

const NOTE = '<!-- Made by scripts/generate.ts from the tables in the code. Change those. -->';

/** Path and text of each page. */
export function generatedDocs(): [string, string][] {
  return [['docs/errors.md', errorsPage()]];
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
  return page(
    'Errors',
    [
      'Why a connection was refused or failed. The code is in the access log (`warren.code`), in the metric `warren_refusals_total`, and, for',
      "peers of the mesh, in the answer's header `x-warren-refusal`. The flag is `response_flags` of the `istio_tcp_*` metrics; the status is",
      'what a peer’s CONNECT is answered with.',
    ].join('\n'),
    ['code', 'flag', 'status', 'level', 'what it means, what to do'],
    rows,
  );
}

export function page(title: string, intro: string, head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|').replaceAll('\n', ' ')).join(' | ')} |`;
  return `${NOTE}\n\n# ${title}\n\n${intro}\n\n${[line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')}\n`;
}
