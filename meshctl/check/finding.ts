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
type Pages = readonly (readonly [about: RegExp, page: string])[];

const BEFORE: Pages = [
  [/^NetworkPolicies$/, 'docs/enrolment.md#networkpolicies'],
  [/^nodes$/, 'docs/install.md#what-you-need'],
  [/./, 'docs/install.md#1-ask-first'],
];

const AFTER: Pages = [
  [/^NetworkPolicies$/, 'docs/enrolment.md#networkpolicies'],
  [/^pods$/, 'docs/enrolment.md#what-is-where-to-be-seen'],
  [/^(?:version|definitions)$/, 'docs/install.md#upgrade'],
  [/^Gateway API$/, 'docs/install.md#1-ask-first'],
  [/^(?:root certificate|certificates)$/, 'docs/control-plane.md#certificates'],
  [/istio-cni-node$/, 'docs/cni-plugin.md#while-the-agent-is-away'],
  [/^writer$|istiod$/, 'docs/control-plane.md#when-something-is-away'],
  [/^installation$/, 'docs/install.md#2-install'],
  [/./, 'docs/install.md#3-look'],
];

/** @param pre of a check before an installation */
export const pageOf = (check: string, pre: boolean): string => (pre ? BEFORE : AFTER).find(([about]) => about.test(check))?.[1] ?? '';

/** With where to read on, where something is to be mended. */
export const linked = (finding: Finding, pre: boolean): Finding =>
  finding.severity === 'ok'
    ? finding
    : { ...finding, mend: [finding.mend, `see ${pageOf(finding.check, pre)}`].filter((text) => text !== '').join('; ') };

const MARKS = { ok: '✔', warning: '!', error: '✘' } as const;

/** One line, however the message was written. */
export function findingLine({ check, severity, message, mend }: Finding, colour: boolean): string {
  const paint = picocolors.createColors(colour);
  const mark = { ok: paint.green, warning: paint.yellow, error: paint.red }[severity](MARKS[severity]);
  return `${mark} ${oneLine(`${check}: ${message}`)}${mend && ` (${oneLine(mend)})`}`;
}

export const oneLine = (text: string): string => text.replaceAll(/\s+/g, ' ').trim();

/** For `-o json|yaml`: one object, so that more can be said later. */
export const findingsData = (findings: readonly Finding[]): { ok: boolean; findings: readonly Finding[] } => ({
  ok: !hasErrors(findings),
  findings,
});
