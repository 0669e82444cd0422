/**
 * One key set from where somebody wrote that it is. That may be anywhere, so: HTTP and HTTPS alone, a limit of time and of bytes, few redirects,
 * and never an address that only this machine or its cloud answers (link-local and metadata addresses, loopback), however it is spelt.
 */
import { lookup as systemLookup } from 'node:dns/promises';
import type { IncomingMessage } from 'node:http';
import { get as httpsGet } from 'node:https';
import { type Cidr, cidrContains, ipBytes, parseCidr } from '../../common/base/address.ts';
import { errorMessage } from '../../common/base/errors.ts';
import { http } from '../../common/base/node-http.ts';
import { readKeys } from '../../common/decision/jwt.ts';

export interface FetchOptions {
  readonly timeoutMs: number;
  /** Ranges that are not asked, beside those that nobody may ask. */
  readonly blocked: readonly Cidr[];
  /** Addresses of a name. */
  lookup(hostname: string): Promise<readonly string[]>;
}

export const lookupAll = async (hostname: string): Promise<readonly string[]> =>
  (await systemLookup(hostname, { all: true })).map(({ address }) => address);

const MAX_BYTES = 1 << 20;
const MAX_REDIRECTS = 3;

/** Cloud providers' metadata, neighbours on the link, and whoever listens on this pod alone. */
const NEVER = [
  '169.254.0.0/16',
  'fe80::/10',
  'fd00:ec2::/32',
  '127.0.0.0/8',
  '::1/128',
  '0.0.0.0/8',
  '::/128',
  '100.100.100.200/32',
].flatMap((range) => parseCidr(range) ?? []);

/**
 * @param from an address, or `discover ISSUER`: then the issuer's own document says where the keys are (OpenID Connect Discovery, section 4)
 * @throws {Error} in a sentence for the object's status
 */
export async function fetchKeys(from: string, discoverPrefix: string, options: FetchOptions): Promise<string> {
  const deadline = AbortSignal.timeout(options.timeoutMs);
  const address = from.startsWith(discoverPrefix) ? await discovered(from.slice(discoverPrefix.length), options, deadline) : from;
  const keys = await fetchText(address, options, deadline);
  readKeys(keys);
  return keys;
}

async function discovered(issuer: string, options: FetchOptions, deadline: AbortSignal): Promise<string> {
  const document = await fetchText(`${issuer.replace(/\/+$/, '')}/.well-known/openid-configuration`, options, deadline);
  let parsed: unknown;
  try {
    parsed = JSON.parse(document);
  } catch (error) {
    throw new Error(`what ${issuer} says of itself is no JSON`, { cause: error });
  }
  const found = typeof parsed === 'object' && parsed !== null && 'jwks_uri' in parsed ? parsed.jwks_uri : undefined;
  if (typeof found !== 'string') throw new Error(`${issuer} does not say where its keys are`);
  return found;
}

async function fetchText(address: string, options: FetchOptions, deadline: AbortSignal): Promise<string> {
  let next = address;
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    const url = readUrl(next);
    const response = await request(url, await allowedAddress(url.hostname, options), deadline);
    const { statusCode = 0, headers } = response;
    if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined) {
      response.destroy();
      next = new URL(headers.location, url).href;
      // What was asked for safely is not fetched in the clear.
      if (url.protocol === 'https:' && readUrl(next).protocol !== 'https:') throw new Error(`${url.host} leads from HTTPS to HTTP`);
      continue;
    }
    if (statusCode !== 200) {
      response.destroy();
      throw new Error(`${url.host} answered ${statusCode}`);
    }
    return await bodyOf(response, url.host);
  }
  throw new Error(`${address} leads to more than ${MAX_REDIRECTS} other places`);
}

function readUrl(address: string): URL {
  let url: URL;
  try {
    url = new URL(address);
  } catch (error) {
    throw new Error(`${JSON.stringify(address.slice(0, 200))} is no address`, { cause: error });
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw new Error(`keys are not fetched by ${url.protocol}`);
  return url;
}

/** The address that is dialled is the one that was judged: a name that changes its mind in between gains nothing. */
async function allowedAddress(hostname: string, { lookup, blocked }: FetchOptions): Promise<string> {
  const bare = hostname.replace(/^\[(.*)\]$/, '$1');
  const addresses = ipBytes(bare) ? [bare] : await lookup(bare);
  const ranges = [...NEVER, ...blocked];
  const allowed = addresses.find((address) => {
    const bytes = unmapped(ipBytes(address));
    return bytes !== undefined && !ranges.some((range) => cidrContains(range, bytes));
  });
  if (allowed === undefined) throw new Error(`${hostname} has no address that keys may be fetched from`);
  return allowed;
}

const MAPPED = Buffer.from('00000000000000000000ffff', 'hex');

/** IPv4 in the clothes of IPv6 is IPv4. */
const unmapped = (bytes: Uint8Array | undefined): Uint8Array | undefined =>
  bytes?.length === 16 && MAPPED.equals(bytes.subarray(0, 12)) ? bytes.subarray(12) : bytes;

function request(url: URL, address: string, signal: AbortSignal): Promise<IncomingMessage> {
  const get = url.protocol === 'https:' ? httpsGet : http.get;
  const family = address.includes(':') ? 6 : 4;
  return new Promise((resolve, reject) => {
    const fail = (error: unknown): void => reject(signal.aborted ? new Error(`${url.host} did not answer in time`) : readable(url, error));
    const options = {
      signal,
      headers: { accept: 'application/json' },
      // node:net asks for one address or for all of them.
      lookup: (_: string, o: { all?: boolean }, done: (error: null, found: string | object[], of?: number) => void) =>
        o.all ? done(null, [{ address, family }]) : done(null, address, family),
    };
    get(url, options as Parameters<typeof http.get>[1], resolve).on('error', fail);
  });
}

const readable = (url: URL, error: unknown): Error => new Error(`${url.host}: ${errorMessage(error)}`, { cause: error });

async function bodyOf(response: IncomingMessage, host: string): Promise<string> {
  const pieces: Buffer[] = [];
  let length = 0;
  try {
    for await (const piece of response) {
      length += (piece as Buffer).length;
      if (length > MAX_BYTES) throw new Error(`more than ${MAX_BYTES} bytes`);
      pieces.push(piece as Buffer);
    }
  } catch (error) {
    throw new Error(`${host}: ${errorMessage(error)}`, { cause: error });
  }
  return Buffer.concat(pieces).toString();
}
