/** `meshctl status`: collect, report, print; exit status 0 healthy, 1 degraded. */
import picocolors from 'picocolors';
import { systemClock } from '../../common/base/clock.ts';
import { CommandError } from '../command-error.ts';
import { collect } from '../status/collect.ts';
import { makeReport, type StatusReport } from '../status/report.ts';
import { type Connection, checkFormat, clusterError, connect, hanging, inColour, plural, print, TABLE_WIDTH, table } from '../terminal.ts';

export async function status(options: Connection & { readonly output: string }): Promise<number> {
  checkFormat(options.output);
  const api = connect(options);
  try {
    const report = makeReport(await collect(api, options.systemNamespace, systemClock));
    await print(report, options.output, (width) => render(report, inColour(), width));
    return report.healthy ? 0 : 1;
  } catch (error) {
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    api.close();
  }
}

export function render(report: StatusReport, colour: boolean, width: number = TABLE_WIDTH): string {
  const paint = picocolors.createColors(colour);
  const { controlPlane, nodes, namespaces, waypoints, certificates, refusals, problems } = report;
  return [
    `control plane   istiod ${controlPlane.ready}/${controlPlane.wanted} ready`,
    '',
    table(
      ['NODE', 'ZTUNNEL', 'VERSION', 'SYNCED', 'AGENT', 'PODS ENROLLED'],
      nodes.map((node) => [
        node.node,
        node.ztunnel,
        node.version || '-',
        node.synced ? 'yes' : 'no',
        node.agent,
        String(node.podsEnrolled),
      ]),
      { width },
    ),
    '',
    namespaces.length === 0
      ? 'namespaces      none in the mesh'
      : table(
          ['NAMESPACE', 'PODS ENROLLED'],
          namespaces.map(({ namespace, podsEnrolled, pods }) => [namespace, `${podsEnrolled}/${pods}`]),
          { width },
        ),
    '',
    waypoints.length === 0
      ? 'waypoints       none'
      : table(
          ['WAYPOINT', 'PROGRAMMED', 'ADDRESS'],
          waypoints.map(({ waypoint, programmed, address }) => [waypoint, programmed ? 'yes' : 'no', address]),
          { width },
        ),
    '',
    `certificates    ${certificates.count}${certificates.soonestExpiry ? `, the first to expire at ${certificates.soonestExpiry}` : ''}`,
    '',
    ...(refusals.length === 0
      ? []
      : [
          'refused in the last minutes:',
          ...refusals.flatMap(({ code, policy, source, destination, count }) =>
            hanging('  ', `${count} × ${code}${policy ? ` by ${policy}` : ''}: ${source} → ${destination}`, width),
          ),
          '',
        ]),
    problems.length === 0
      ? paint.green('healthy: no problems found')
      : [
          `${report.healthy ? paint.green('healthy') : paint.red('degraded')}: ${plural(problems.length, 'problem')}`,
          ...problems.flatMap(({ severity, object, message }) => {
            const [first = '', ...more] = hanging('          ', `${object}: ${message}`, width);
            const mark = severity === 'error' ? paint.red('error  ') : paint.yellow('warning');
            return [`  ${mark} ${first.trimStart()}`, ...more];
          }),
        ].join('\n'),
  ].join('\n');
}
