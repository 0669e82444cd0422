/** What a check found, in one line, with the mend; and how findings are printed. */
import picocolors from 'picocolors';

export type Severity = 'ok' | 'warning' | 'error';

export interface Finding {
  /** What was looked at: `version`, `permissions`, `Deployment istio-system/istiod`. */
  readonly check: string;
  readonly severity: Severity;
  readonly message: string;
  /** What to do about it; empty where nothing is to be done. */
  readonly mend: string;
}

export const ok = (check: string, message: string): Finding => ({ check, severity: 'ok', message, mend: '' });
export const warning = (check: string, message: string, mend: string): Finding => ({ check, severity: 'warning', message, mend });
export const failure = (check: string, message: string, mend: string): Finding => ({ check, severity: 'error', message, mend });

export const hasErrors = (findings: readonly Finding[]): boolean => findings.some(({ severity }) => severity === 'error');

/** Where more is written about what was looked at; the first that fits. */
const PAGES: readonly (readonly [about: RegExp, page: string])[] = [
  [/^(?:version|definitions|installation)$/, 'docs/install.md#upgrade'],
  [/^(?:permissions|Gateway API|Istio's kinds|nodes?|kernel|reading|values|objects|namespace|installed)/i, 'docs/install.md#what-you-need'],
  [/^(?:root certificate|certificates|writer)$/, 'docs/control-plane.md#certificates'],
  [/cni|CNI|node agent/, 'docs/cni-plugin.md'],
  [/^pods?\b|enrol/, 'docs/enrolment.md#what-is-where-to-be-seen'],
  [/network ?polic/i, 'docs/enrolment.md#networkpolicies'],
  [/istiod/, 'docs/control-plane.md#when-something-is-away'],
];

const pageOf = (check: string): string => PAGES.find(([about]) => about.test(check))?.[1] ?? 'docs/install.md';

/** With where to read on, where something is to be mended. */
export const linked = (finding: Finding): Finding =>
  finding.severity === 'ok' ? finding : { ...finding, mend: `${finding.mend}${finding.mend && '; '}see ${pageOf(finding.check)}` };

const MARKS = { ok: '✔', warning: '!', error: '✘' } as const;

/** One line, however the message was written. */
export function findingLine({ check, severity, message, mend }: Finding, colour: boolean): string {
  const paint = picocolors.createColors(colour);
  const mark = { ok: paint.green, warning: paint.yellow, error: paint.red }[severity](MARKS[severity]);
  return `${mark} ${oneLine(`${check}: ${message}`)}${mend && ` (${oneLine(mend)})`}`;
}

export const oneLine = (text: string): string => text.replaceAll(/\s+/g, ' ').trim();

/** For `-o json`: one object, so that more can be said later. */
export function findingsJson(findings: readonly Finding[]): string {
  return JSON.stringify({ ok: !hasErrors(findings), findings }, null, 2);
}
