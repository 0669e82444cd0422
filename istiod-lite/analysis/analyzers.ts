/** All analyzers, by the names under which they can be chosen. */
import type { ObjectCheck, SetCheck } from './analyzer.ts';
import { shownConditions } from './conditions.ts';
import { caCertificates, subsets } from './destination-rules.ts';
import { unknownFields } from './known-fields.ts';
import { addressFamilies, gatewaySelectors, requiredWaypoints, selectors, sourceNamespaces, strictCallers } from './policies.ts';
import { shadowedRoutes } from './routes.ts';
import { entryAddresses, entryProtocols, portNames } from './services.ts';
import { kinds, sidecars } from './unenforced.ts';
import { conflictingHosts, destinationPorts, unreachableRules } from './virtual-services.ts';

/** Those that look at one object alone; admission runs them too. */
export const objectChecks: readonly ObjectCheck[] = [caCertificates, entryAddresses, kinds, portNames, unknownFields, unreachableRules];

export const setChecks: readonly SetCheck[] = [
  addressFamilies,
  conflictingHosts,
  destinationPorts,
  entryProtocols,
  gatewaySelectors,
  requiredWaypoints,
  selectors,
  shadowedRoutes,
  shownConditions,
  sidecars,
  sourceNamespaces,
  strictCallers,
  subsets,
];
