/** What a CNI plugin posts for each new pod: names, namespace file, addresses. Decoded once, with errors that name the field. */
import { type IpAddress, parseIp } from '../../common/base/address.ts';

export interface CmdAdd {
  readonly netns: string;
  readonly podName: string;
  readonly podNamespace: string;
  /** Without prefix lengths. */
  readonly ips: readonly IpAddress[];
}

const MAX_NAME = 253;
const MAX_IPS = 16;

/** @throws {Error} saying which field is wrong */
export function parseCmdAdd(text: string): CmdAdd {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw new Error('the body is no JSON');
  }
  if (typeof body !== 'object' || body === null) throw new Error('the body is no JSON object');
  const fields = body as Record<string, unknown>;
  const netns = nameOf(fields, 'Netns', 4096);
  if (!netns.startsWith('/')) throw new Error(`Netns: expected an absolute path, got ${JSON.stringify(netns)}`);
  return { netns, podName: nameOf(fields, 'PodName'), podNamespace: nameOf(fields, 'PodNamespace'), ips: ipsOf(fields.IPs) };
}

function nameOf(fields: Record<string, unknown>, field: string, limit = MAX_NAME): string {
  const value = fields[field];
  if (typeof value !== 'string' || value === '' || value.length > limit)
    throw new Error(`${field}: expected text of 1 to ${limit} characters`);
  return value;
}

/** Each entry is text, or an object with `Address`, `address`, `IP` or `ip`; with a prefix length or without. */
function ipsOf(value: unknown): IpAddress[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || value.length > MAX_IPS) throw new Error(`IPs: expected a list of at most ${MAX_IPS}`);
  return value.map((entry: unknown, i) => {
    const text = typeof entry === 'string' ? entry : addressOf(entry);
    const ip = text === undefined ? undefined : parseIp(text.split('/')[0] ?? '');
    if (ip === undefined) throw new Error(`IPs[${i}]: expected an address, got ${JSON.stringify(entry)}`);
    return ip;
  });
}

function addressOf(entry: unknown): string | undefined {
  if (typeof entry !== 'object' || entry === null) return undefined;
  const fields = entry as Record<string, unknown>;
  const value = ['Address', 'address', 'IP', 'ip'].map((name) => fields[name]).find((field) => field !== undefined);
  if (typeof value === 'string') return value;
  // Go's net.IPNet as JSON: an address, and a mask that is of no interest here.
  return typeof value === 'object' && value !== null ? addressOf(value) : undefined;
}
