/** All analyzers, by the names under which they can be chosen. */
import type { ObjectCheck, SetCheck } from './analyzer.ts';
import { claimRoutes } from './claim-routes.ts';
import { shownConditions } from './conditions.ts';
import { caCertificates, subsets } from './destination-rules.ts';
import { unknownFields } from './known-fields.ts';
import { metadataWords } from './metadata.ts';
import { addressFamilies, gatewaySelectors, requiredWaypoints, selectors, sourceNamespaces, strictCallers } from './policies.ts';
import { referenceGrants, shadowedRoutes } from './routes.ts';
import { entryAddresses, entryProtocols, portNames } from './services.ts';
import { kinds, sidecars } from './unenforced.ts';
import { conflictingHosts, destinationPorts, unreachableRules } from './virtual-services.ts';

/** Those that look at one object alone; admission runs them too. */
export const objectChecks: readonly ObjectCheck[] = [
  caCertificates,
  entryAddresses,
  kinds,
  metadataWords,
  portNames,
  referenceGrants,
  unknownFields,
  unreachableRules,
];

export const setChecks: readonly SetCheck[] = [
  addressFamilies,
  claimRoutes,
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
