/** An explanation as lines for a terminal, 100 columns where names allow. */
import type { PolicySeen, RouteSeen } from '../../common/decision/explain.ts';
import { type Explanation, overall, type Way } from './explanation.ts';

type Paint = Readonly<Record<'green' | 'red' | 'yellow' | 'bold', (text: string) => string>>;

export function render(explanation: Explanation, paint: Paint): string {
  const { call, source, steps, ways } = explanation;
  return [
    paint.bold(`${call.namespace}/${call.pod} to ${call.host}:${call.port}`),
    '',
    `at ${source.namespace}/${source.name}${source.node === '' ? '' : ` on ${source.node}`}`,
    ...steps.map(({ text }) => `  ${text}`),
    ...ways.flatMap((way) => ['', ...wayLines(way, ways.length > 1, paint)]),
    '',
    conclusion(explanation, paint),
  ].join('\n');
}

function wayLines({ route, arrival, request, ways, verdict }: Way, several: boolean, paint: Paint): string[] {
  const share = several ? `${Math.round(route.share * 100)}% of connections: ` : '';
  const lines = [`${share}${routeText(route)}`];
  for (const peer of route.peers ?? []) lines.push(`  the other end must prove ${peer}`);
  if (request) {
    lines.push(`at waypoint ${route.pod?.namespace}/${route.pod?.name} on ${route.pod?.node}`);
    lines.push(...request.steps.map(({ text }) => `  ${text}`));
    lines.push(...request.policies.flatMap(policyLines));
    if (ways && request.unknown !== undefined) lines.push(paint.yellow(`  ${request.unknown}; where it allows it:`));
    if (ways) return [...lines, ...ways.flatMap((way) => ['', ...wayLines(way, ways.length > 1, paint)])];
  }
  if (arrival) {
    lines.push(`at ${route.pod?.namespace}/${route.pod?.name} on ${route.pod?.node}`);
    lines.push(...arrival.steps.map(({ text }) => `  ${text}`));
    lines.push(...arrival.policies.flatMap(policyLines));
    if (arrival.policies.length === 0 && arrival.allowed) lines.push('  no policy applies');
  }
  const { outcome, code, policy, reason } = verdict;
  const by = policy === undefined ? '' : `, by policy ${policy}`;
  if (outcome === 'refused') lines.push(paint.red(`  refused${code === undefined ? '' : ` ${code}`}${by}: ${reason}`));
  else if (outcome === 'delivered')
    lines.push(paint.green(`  delivered${arrival?.to === undefined ? '' : ` to ${arrival.to}`}${by}: ${reason}`));
  else if (outcome === 'answered') lines.push(paint.yellow(`  answered ${verdict.status ?? ''}: ${reason}`));
  else lines.push(paint.yellow(`  ${reason}`));
  return lines;
}

function routeText({ via, to, pod, service, waypoint, message }: RouteSeen): string {
  const whose = pod ? `${pod.namespace}/${pod.name}` : (service ?? 'unknown to the mesh');
  switch (via) {
    case 'hbone':
      return waypoint ? `a tunnel to waypoint ${whose} (${to})` : `a tunnel to ${whose} (${to})`;
    case 'double-hbone':
      return `two tunnels, through the gateway at ${to}`;
    case 'tcp':
      return `in the clear to ${whose} (${to})`;
    case 'passthrough':
      return `as it is to ${to}${pod ? ` (${whose})` : ''}`;
    case 'refuse':
      return 'it does not leave the pod';
    case 'answer':
      return 'the waypoint answers it';
    case 'resolve':
      return message ?? '';
  }
}

function policyLines({ policy, action, dryRun, matched, rule, unmet }: PolicySeen): string[] {
  const head = `  ${action}${dryRun ? ' (dry run)' : ''} ${policy}: `;
  if (matched) return [`${head}${rule === undefined ? 'a rule' : `rule ${rule}`} matches`];
  if (unmet.length === 0) return [`${head}no rule matches`];
  return [`${head}no rule matches`, ...unmet.map((text) => `    ${text}`)];
}

const reasonsOf = ({ ways }: Explanation): string => [...new Set(ways.map(({ verdict: { reason } }) => reason))].join('; ');

function conclusion(explanation: Explanation, paint: Paint): string {
  const words = {
    delivered: paint.green('it is delivered'),
    refused: paint.red('it is refused'),
    answered: paint.yellow('the waypoint answers it, as its rule wants it'),
    unknown: paint.yellow(`what becomes of it cannot be said: ${reasonsOf(explanation)}`),
    depends: paint.yellow('it depends on the way that it takes'),
  };
  return words[overall(explanation)];
}
