/**
 * The gRPC side of ADS: who may open a stream at all, and which form of the protocol it speaks. What becomes of it is Session's.
 * @see Istio: pilot/pkg/xds/auth.go, pilot/pkg/xds/ads.go
 */
import type { ServiceDefinition, UntypedHandleCall } from '@grpc/grpc-js';
import { errorMessage } from '../../common/base/errors.ts';
import {
  AggregatedDiscoveryServiceService,
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  DiscoveryRequest,
  DiscoveryResponse,
} from '../../common/codec/gen/discovery.ts';
import { DeltaStream } from './delta-stream.ts';
import { type AdsCall, type AdsOptions, type AnyRequest, type Protocol, type RefusalCode, refuseCall, Session } from './session.ts';
import { SotwStream } from './sotw-stream.ts';

/** Undefined for bytes that are none: reported by the handler, with the proxy's name. */
const lenient =
  <T>(codec: { decode(bytes: Buffer): T }) =>
  (bytes: Buffer): T | undefined => {
    try {
      return codec.decode(bytes);
    } catch {
      return undefined;
    }
  };

const frames = { responseSerialize: (frame: Buffer): Buffer => frame };
const { deltaAggregatedResources, streamAggregatedResources } = AggregatedDiscoveryServiceService;

export const adsDefinition = {
  deltaAggregatedResources: {
    ...deltaAggregatedResources,
    ...frames,
    requestDeserialize: lenient(DeltaDiscoveryRequest),
    responseDeserialize: (bytes: Buffer): DeltaDiscoveryResponse => DeltaDiscoveryResponse.decode(bytes),
  },
  streamAggregatedResources: {
    ...streamAggregatedResources,
    ...frames,
    requestDeserialize: lenient(DiscoveryRequest),
    responseDeserialize: (bytes: Buffer): DiscoveryResponse => DiscoveryResponse.decode(bytes),
  },
} satisfies ServiceDefinition;

const delta: Protocol<DeltaDiscoveryRequest> = { request: 'DeltaDiscoveryRequest', open: (options) => new DeltaStream(options) };
const stateOfTheWorld: Protocol<DiscoveryRequest> = { request: 'DiscoveryRequest', open: (options) => new SotwStream(options) };

/** Both methods; streams of both count together. */
export function createAdsHandlers(given: Omit<AdsOptions, 'unknownTypes'>): { [method in keyof typeof adsDefinition]: UntypedHandleCall } {
  const options: AdsOptions = { ...given, unknownTypes: new Set() };
  let opening = 0;
  let nonces = 0;
  const nonce = (): string => `${(++nonces).toString(36)}-${Math.floor(options.random() * 2 ** 32).toString(36)}`;
  const handler =
    <Request extends AnyRequest>(protocol: Protocol<Request>): UntypedHandleCall =>
    (call: AdsCall<Request>) => {
      const refuse = (code: RefusalCode, message: string): void => refuseCall(options, call, {}, code, message);
      if (!options.ready()) {
        refuse('UNAVAILABLE', 'istiod has not read the cluster yet');
        return;
      }
      if (options.proxies.size + opening >= options.limits.maxProxies) {
        refuse('RESOURCE_EXHAUSTED', `${options.limits.maxProxies} proxies are connected already`);
        return;
      }
      opening++;
      options.access
        .authenticate(call)
        .then((authentication) => {
          if (call.cancelled) return;
          if ('refuse' in authentication) refuse(authentication.refuse, authentication.message);
          else new Session(call, authentication.caller, protocol, options, nonce).start();
        })
        .catch((error: unknown) => refuse('UNAVAILABLE', errorMessage(error)))
        .finally(() => opening--);
    };
  return { deltaAggregatedResources: handler(delta), streamAggregatedResources: handler(stateOfTheWorld) };
}
