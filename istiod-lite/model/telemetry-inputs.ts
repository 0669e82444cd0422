/** Telemetry objects, and what must be made anew when something changes that they, or the providers that they name, hang on. */
import { isDeepStrictEqual } from 'node:util';
import { Groups } from './groups.ts';
import type { MeshConfig } from './mesh-config.ts';
import { targetSource } from './policy-targets.ts';
import type { Telemetry } from './telemetry.ts';

export class TelemetryInputs {
  readonly #objects = new Map<string, Telemetry>();
  readonly #ofNamespace = new Groups<Telemetry>();
  readonly #ofTarget = new Groups<Telemetry>();
  /** Hosts of the mesh's providers. */
  #hosts: ReadonlySet<string> = new Set();
  #meshSays = false;
  readonly stale = {
    /** Everything that telemetry is made for. */
    all: false,
    /** `Gateway/namespace/name`, and sources of services. */
    sources: new Set<string>(),
  };

  /** Whether anything is said at all, by an object or by the mesh's configuration. */
  get says(): boolean {
    return this.#meshSays || this.#objects.size > 0;
  }

  objects(): Iterable<Telemetry> {
    return this.#objects.values();
  }

  get(key: string): Telemetry | undefined {
    return this.#objects.get(key);
  }

  set(key: string, next: Telemetry | undefined): void {
    const before = this.#objects.get(key);
    if (isDeepStrictEqual(before, next)) return;
    if (before) {
      this.#ofNamespace.remove(before.namespace, before);
      for (const target of before.targets) this.#ofTarget.remove(targetSource(target), before);
      this.#objects.delete(key);
    }
    if (next) {
      this.#ofNamespace.add(next.namespace, next);
      for (const target of next.targets) this.#ofTarget.add(targetSource(target), next);
      this.#objects.set(key, next);
    }
    // Objects are few and change seldom, and one of them may hold for the whole mesh.
    this.stale.all = true;
  }

  meshChanged({ extensionProviders, defaultProviders, accessLogFile }: MeshConfig): void {
    const services = [...extensionProviders.values()].flatMap((provider) => ('service' in provider ? [provider.service.host] : []));
    this.#hosts = new Set(services);
    this.#meshSays = accessLogFile !== '' || Object.values(defaultProviders).some((names) => names.length > 0);
    this.stale.all = true;
  }

  /** A Gateway or a service, or what it is bound to, may be another one. */
  sourceChanged(source: string): void {
    if (this.says) this.stale.sources.add(source);
  }

  /** Who has this name may be another one, or nobody. */
  hostnameChanged(hostname: string): void {
    if (this.says && this.#hosts.has(hostname)) this.stale.all = true;
  }

  /** What holds for a whole namespace: the oldest one that says so (Istio, namespaceWideTelemetryConfig). */
  namespaceWide(namespace: string): Telemetry | undefined {
    return inOrder([...this.#ofNamespace.of(namespace)].filter(({ scope }) => scope === 'namespace'))[0];
  }

  /** What names this as a target, oldest first. @param source `Kind/namespace/name`, or `GatewayClass/name` */
  targeting(source: string): Telemetry[] {
    return inOrder([...this.#ofTarget.of(source)]);
  }
}

const inOrder = (found: Telemetry[]): Telemetry[] => found.sort((a, b) => compare(a.createdAt, b.createdAt) || compare(a.key, b.key));

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
