/**
 * Whom CUSTOM policies ask: an extension provider of the mesh's configuration (envoyExtAuthzHttp, envoyExtAuthzGrpc), as a waypoint is told it.
 * A provider that is not there, or cannot be used, is a problem of the policies that name it, and what they match is refused.
 */
import type { Authorizer, BackendRef, TextMatch } from '../../common/codec/gen/waypoint.ts';
import type { ExtAuthzGrpcProvider, ExtAuthzHttpProvider, ExtensionProvider, ProviderService } from './extension-providers.ts';
import { textMatch } from './http-policy.ts';

export interface AuthorizerView {
  provider(name: string): ExtensionProvider | undefined;
  /** The service that a provider is, or why there is none. */
  service(service: ProviderService): BackendRef | string;
}

/** @returns text saying why nobody can be asked */
export function authorizerOf(name: string, view: AuthorizerView): Authorizer | string {
  if (name === '') return 'the policy names no provider (spec.provider.name)';
  const provider = view.provider(name);
  if (!provider) return `the mesh's configuration has no extension provider ${name}`;
  if (provider.kind === 'unusable') return provider.problem;
  if (provider.kind !== 'envoyExtAuthzHttp' && provider.kind !== 'envoyExtAuthzGrpc')
    return `extension provider ${name} is of kind ${provider.kind}, which authorizes nothing`;
  const to = view.service(provider.service);
  return typeof to === 'string' ? `extension provider ${name}: ${to}` : authorizer(name, provider, to);
}

function authorizer(name: string, provider: ExtAuthzHttpProvider | ExtAuthzGrpcProvider, to: BackendRef): Authorizer {
  const { timeoutMs, failOpen, statusOnError, includeRequestBodyInCheck: body } = provider;
  const http = provider.kind === 'envoyExtAuthzHttp' ? provider : undefined;
  return {
    name,
    to,
    timeoutMs,
    failOpen,
    statusOnError,
    grpc: http === undefined,
    pathPrefix: http?.pathPrefix ?? '',
    includeHeaders: matches(http?.includeRequestHeadersInCheck),
    additionalHeaders: Object.entries(http?.includeAdditionalHeadersInCheck ?? {}).map(([header, value]) => ({ name: header, value })),
    body: body && { maxBytes: body.maxRequestBytes, allowPartial: body.allowPartialMessage, packAsBytes: body.packAsBytes },
    toUpstreamOnAllow: matches(http?.headersToUpstreamOnAllow),
    toDownstreamOnDeny: matches(http?.headersToDownstreamOnDeny),
    toDownstreamOnAllow: matches(http?.headersToDownstreamOnAllow),
  };
}

/** Names of fields, with `*` at an end; they have no case. */
const matches = (names: readonly string[] = []): TextMatch[] => names.flatMap((name) => textMatch(name.toLowerCase()) ?? []);
