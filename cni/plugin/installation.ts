/**
 * What the mesh leaves on the node for the time when a pod is made: the plugin's executable, what it goes by while the agent is away, and
 * last its place in the CNI configuration, which makes the runtime call it. It all stays while the agent is replaced by another one: pods of
 * the mesh wait for the next agent rather than start outside of it. Only when the mesh is uninstalled it goes, the other way round.
 */
import { join } from 'node:path';
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { PluginOptions } from '../conflist/conflist.ts';
import { type Form, install, uninstall } from '../conflist/install.ts';
import { Keeper } from '../conflist/keeper.ts';
import { type CacheContent, CacheFile } from './cache.ts';
import { PluginExecutable } from './executable.ts';

/** As Istio names them in its metric. */
export type InstallResult = 'SUCCESS' | 'COPY_BINARIES_FAILURE' | 'CREATE_CNI_CONFIG_FAILURE';

export interface InstallationParts {
  readonly clock: Clock;
  readonly log: Log;
  /** The executable in the image; none where whoever makes pods asks the agent by other means. */
  readonly executable: string | undefined;
  /** The node's folders, as this container sees them. */
  readonly binFolder: string;
  readonly configFolder: string;
  readonly form: Form;
  readonly options: PluginOptions;
  describe(): CacheContent;
  onResult(result: InstallResult): void;
}

/** Beside the executable, which finds it there whatever the folder is called on the host. */
const stateFolder = (binFolder: string): string => join(binFolder, 'istio-cni.d');
export const bypassFile = (binFolder: string): string => join(stateFolder(binFolder), 'bypass');

export class Installation {
  readonly #parts: InstallationParts;
  readonly #executable: PluginExecutable | undefined;
  readonly #cache: CacheFile;
  readonly #keeper: Keeper;
  #failedAt: Exclude<InstallResult, 'SUCCESS'> = 'COPY_BINARIES_FAILURE';

  constructor(parts: InstallationParts) {
    const { clock, log, executable, binFolder, configFolder, describe, onResult } = parts;
    this.#parts = parts;
    this.#executable = executable === undefined ? undefined : new PluginExecutable(executable, binFolder);
    this.#cache = new CacheFile({ path: join(stateFolder(binFolder), 'cache.json'), clock, log, describe });
    this.#keeper = new Keeper({
      clock,
      log,
      folders: [configFolder, binFolder],
      ensure: () => this.#ensure(),
      onState: (problem) => onResult(problem === undefined ? 'SUCCESS' : this.#failedAt),
    });
  }

  /** Why the node's runtime does not call the plugin; undefined where it does. */
  get problem(): string | undefined {
    return this.#keeper.problem;
  }

  start(): void {
    this.#keeper.start();
  }

  /** Which pods belong to the mesh may have changed. */
  enrolmentChanged(): void {
    if (this.#keeper.problem === undefined) this.#cache.changed();
  }

  stop(uninstalled: boolean): void {
    const { log, configFolder, form } = this.#parts;
    this.#keeper.stop();
    this.#cache.stop();
    if (!uninstalled) return;
    for (const remove of [() => void uninstall(configFolder, form), () => this.#executable?.remove(), () => this.#cache.remove()]) {
      try {
        remove();
      } catch (error) {
        log.error({ error: errorMessage(error) }, 'a part of the CNI plugin could not be removed');
      }
    }
  }

  #ensure(): readonly string[] {
    this.#failedAt = 'COPY_BINARIES_FAILURE';
    const written = [...(this.#executable?.ensure() ?? []), ...this.#cache.ensure()];
    this.#failedAt = 'CREATE_CNI_CONFIG_FAILURE';
    const { configFolder, form, options } = this.#parts;
    const { path, changed } = install(configFolder, form, options);
    return changed ? [...written, path] : written;
  }
}
