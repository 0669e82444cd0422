/** `meshctl status`: collect, report, print; exit status 0 healthy, 1 degraded. */
import yaml from 'js-yaml';
import picocolors from 'picocolors';
import { systemClock } from '../../common/base/clock.ts';
import { collect } from '../status/collect.ts';
import { makeReport, type StatusReport } from '../status/report.ts';
import { CommandError, type Connection, clusterError, connect, plural, table } from '../terminal.ts';

const FORMATS = ['text', 'json', 'yaml'];

export async function status(options: Connection & { readonly output: string }): Promise<number> {
  if (!FORMATS.includes(options.output)) throw new CommandError(`-o ${options.output}: expected ${FORMATS.join(', ')}`);
  const api = connect(options);
  try {
    const report = makeReport(await collect(api, options.systemNamespace, systemClock));
    console.log(render(report, options.output, process.stdout.isTTY === true));
    return report.healthy ? 0 : 1;
  } catch (error) {
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    api.close();
  }
}

export function render(report: StatusReport, output: string, colour: boolean): string {
  if (output === 'json') return JSON.stringify(report, null, 2);
  if (output === 'yaml') return yaml.dump(JSON.parse(JSON.stringify(report))).trimEnd();
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
    ),
    '',
    namespaces.length === 0
      ? 'namespaces      none in the mesh'
      : table(
          ['NAMESPACE', 'PODS ENROLLED'],
          namespaces.map(({ namespace, podsEnrolled, pods }) => [namespace, `${podsEnrolled}/${pods}`]),
        ),
    '',
    waypoints.length === 0
      ? 'waypoints       none'
      : table(
          ['WAYPOINT', 'PROGRAMMED', 'ADDRESS'],
          waypoints.map(({ waypoint, programmed, address }) => [waypoint, programmed ? 'yes' : 'no', address]),
        ),
    `certificates    ${certificates.count}${certificates.soonestExpiry ? `, the first to expire at ${certificates.soonestExpiry}` : ''}`,
    '',
    ...(refusals.length === 0
      ? []
      : [
          'refused in the last minutes:',
          ...refusals.map(
            ({ code, policy, source, destination, count }) =>
              `  ${count} × ${code}${policy ? ` by ${policy}` : ''}: ${source} → ${destination}`,
          ),
          '',
        ]),
    problems.length === 0
      ? paint.green('healthy: no problems found')
      : [
          `${report.healthy ? paint.green('healthy') : paint.red('degraded')}: ${plural(problems.length, 'problem')}`,
          ...problems.map(
            ({ severity, object, message }) =>
              `  ${severity === 'error' ? paint.red('error  ') : paint.yellow('warning')} ${object}: ${message}`,
          ),
        ].join('\n'),
  ].join('\n');
}
