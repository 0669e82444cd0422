/**
 * The label that puts pods into the mesh. The node agent acts on it; the control plane, which is where people look, says when its value
 * means nothing.
 */
import * as names from './names.ts';
import { type Labels, quote, type Report } from './objects.ts';

export function checkEnrolment(labels: Labels, report: Report): void {
  const mode = labels[names.DATAPLANE_MODE];
  if (mode === undefined || mode === 'ambient' || mode === 'none') return;
  report(`label ${names.DATAPLANE_MODE}: ${quote(mode)} means nothing here; it is ambient or none`, 'mild');
}
