/** Where a request goes: the resource path of the Kubernetes API taken apart. */

export interface ResourcePath {
  readonly group: string;
  readonly version: string;
  readonly namespace: string;
  readonly plural: string;
  /** '' for the collection. */
  readonly name: string;
  readonly subresource: string;
  /** What follows the subresource, for proxies: starts with `/`. */
  readonly rest: string;
}

/** @returns undefined for paths that are no resource's, discovery included */
export function parseResourcePath(pathname: string): ResourcePath | undefined {
  const segments = pathname.split('/').slice(1).map(decode);
  const [root, ...parts] = segments;
  let group = '';
  if (root === 'apis') group = parts.shift() ?? '';
  else if (root !== 'api') return undefined;
  const version = parts.shift();
  if (!version || parts.length === 0 || parts[0] === '') return undefined;
  let namespace = '';
  // `namespaces/NAME` and its own subresources are about the namespace itself.
  if (parts[0] === 'namespaces' && parts.length > 2 && parts[2] !== 'status' && parts[2] !== 'finalize') {
    namespace = parts[1] ?? '';
    parts.splice(0, 2);
  }
  const [plural = '', name = '', subresource = '', ...rest] = parts;
  return { group, version, namespace, plural, name, subresource, rest: rest.length > 0 ? `/${rest.join('/')}` : '/' };
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    // A stray percent sign names nothing; as it is, it will not be found.
    return segment;
  }
}
