/**
 * The mesh as ztunnels are told it, kept up to date change by change: objects of the cluster go in, changed and removed resources,
 * conditions to write and problems to show come out. Pure: it opens nothing, reads no clock, logs nothing, and never throws for what
 * somebody wrote into an object.
 */
import { errorMessage } from '../../common/base/errors.ts';
import type { CertificateSource, FoundCertificates } from './certificate-sources.ts';
import { problemReporters, unreadableConditions } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import { Coverage } from './coverage.ts';
import { type Finding, findings } from './findings.ts';
import type { GatewayProblem } from './gateway-status.ts';
import { Inputs } from './inputs.ts';
import { ObjectReaders } from './object-readers.ts';
import { objectKey, type Report, readMeta } from './objects.ts';
import { type MeshChanges, Outputs } from './outputs.ts';
import type { Problem } from './problems.ts';
import { Remaking } from './remaking.ts';
import type { FetchedKeys } from './request-authentication.ts';
import type { Resource } from './resources.ts';
import { Translation } from './translation.ts';
import type { KindName, WatchedKindName } from './watched-kinds.ts';
import type { WaypointResources } from './waypoint-tables.ts';

export interface ObjectChange {
  readonly type: 'added' | 'modified' | 'deleted';
  readonly kind: KindName;
  /** The object as the API server sent it; it is not kept. */
  readonly object: unknown;
}

/** The part of what is known that analysis looks at. */
export type IndexView = Pick<Inputs, 'pods' | 'services' | 'claims' | 'gateways' | 'namespace' | 'peers' | 'policies' | 'selecting'>;

export class MeshIndex {
  readonly #config: MeshModelConfig;
  readonly #inputs: Inputs;
  readonly #translation: Translation;
  readonly #outputs: Outputs;
  readonly #readers: ObjectReaders;
  readonly #remaking: Remaking;

  constructor(config: MeshModelConfig) {
    const inputs = new Inputs(config.rootNamespace, config.guardClaims);
    this.#config = config;
    this.#inputs = inputs;
    this.#translation = new Translation(config, inputs);
    this.#outputs = new Outputs(config);
    this.#readers = new ObjectReaders(config, inputs, this.#outputs);
    this.#remaking = new Remaking(config, inputs, this.#translation, this.#outputs);
  }

  apply({ type, kind, object }: ObjectChange): void {
    const meta = readMeta(object);
    if (!meta) {
      this.#outputs.problems.set(`${kind} without a name`, ['an object has no metadata.name']);
      return;
    }
    const key = objectKey(meta);
    const messages: string[] = [];
    const grave: string[] = [];
    const given = type === 'deleted' ? undefined : object;
    try {
      const report: Report = (message, weight) => {
        messages.push(message);
        if (weight !== 'mild') grave.push(message);
      };
      this.#readers.read(kind, key, given, report);
    } catch (error) {
      messages.push(`could not be read: ${errorMessage(error)}`);
    }
    this.#outputs.problems.set(`${kind} ${key}`, messages);
    const reporter = problemReporters[kind];
    if (!reporter) return;
    this.#outputs.observe(reporter, key, given);
    this.#outputs.statuses.want(reporter, key, unreadableConditions([...new Set(grave)], meta.generation));
  }

  /**
   * Everything that changed since the last call.
   * @param mostWorkloads how many sources of workloads to translate at most (about 30 us each); where that leaves some for the next call,
   *   `more` says so. Services and policies always come first and as a whole.
   */
  flush(mostWorkloads = Number.POSITIVE_INFINITY): MeshChanges {
    const more = this.#remaking.run(mostWorkloads);
    return { ...this.#outputs.take(), more };
  }

  /** All resources of a type, for subscribers that have none yet. */
  addresses(): Iterable<Resource> {
    return this.#outputs.addresses.values();
  }

  authorizations(): Iterable<Resource> {
    return this.#outputs.authorizations.values();
  }

  address(name: string): Resource | undefined {
    return this.#outputs.addresses.get(name);
  }

  authorization(name: string): Resource | undefined {
    return this.#outputs.authorizations.get(name);
  }

  /** Everything that one waypoint is told beside addresses; it may not be ready, or not even be there. */
  waypointResources(gatewayNamespace: string, gatewayName: string): WaypointResources {
    return this.#outputs.waypoints.get(`${gatewayNamespace}/${gatewayName}`);
  }

  /** `namespace/name` of the Gateways for which there are such resources. */
  waypoints(): Iterable<string> {
    return this.#outputs.waypoints.keys();
  }

  get counts(): { readonly addresses: number; readonly authorizations: number } {
    return { addresses: this.#outputs.addresses.size, authorizations: this.#outputs.authorizations.size };
  }

  /** What is to be said about an object, stored or not. */
  findings(kind: WatchedKindName, object: unknown): Finding[] {
    try {
      return findings({ config: this.#config, inputs: this.#inputs, translation: this.#translation }, kind, object);
    } catch (error) {
      return [{ kind: 'unreadable', message: `could not be read: ${errorMessage(error)}` }];
    }
  }

  /** Where rules are enforced, as things are now. */
  coverage(): Coverage {
    return new Coverage({ config: this.#config, inputs: this.#inputs, translation: this.#translation });
  }

  /** What there is now, for those who look at objects together. */
  get view(): IndexView {
    return this.#inputs;
  }

  /** What is wrong with objects now. */
  problems(): Iterable<Problem> {
    return this.#outputs.problems.values();
  }

  /** Says in a Gateway's status why it cannot be deployed as it is written; undefined takes it back. */
  setGatewayProblem(key: string, problem: GatewayProblem | undefined): boolean {
    return this.#inputs.gatewayStatuses.setProblem(key, problem);
  }

  /** ConfigMaps and Secrets with certificates that something refers to. */
  certificateSources(): ReadonlySet<CertificateSource> {
    return this.#inputs.certificates.sources();
  }

  /** What was read there; the next flush tells it. */
  setCertificates(source: CertificateSource, found: FoundCertificates | undefined): void {
    this.#inputs.certificates.set(source, found);
  }

  /** Where keys for end users' tokens have to be fetched from: addresses, or `discover ISSUER`. */
  keySources(): ReadonlySet<string> {
    return this.#inputs.targeted.keySources();
  }

  /** What was fetched, or why it could not be; the next flush tells it. */
  setKeys(address: string, found: FetchedKeys | undefined): void {
    this.#inputs.targeted.setKeys(address, found);
  }

  /** The namespace, node and service account of a pod, by which certificates for it are asked for; undefined where there is no such pod. */
  pod(key: string): { readonly namespace: string; readonly node: string; readonly serviceAccount: string } | undefined {
    return this.#inputs.pods.get(key);
  }
}
