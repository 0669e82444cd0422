/**
 * Reading nftables through their own library: a table's text in a millisecond, where starting `nft` takes ten. Only reading: a transaction
 * waits inside the kernel, and whoever called it here would stop meanwhile. Where the library is not installed, `openNftables` says so and
 * callers start the program.
 */
import koffi from 'koffi';

export interface Nftables {
  /**
   * The table as `nft -s list table FAMILY NAME` prints it, in the network namespace that the thread is in; undefined where there is none.
   * @throws {Error} with what the library said
   */
  listTable(family: string, name: string): string | undefined;
}

/** NFT_CTX_OUTPUT_STATELESS: without counters, which differ from one reading to the next. */
const STATELESS = 1 << 2;

/** @returns undefined where libnftables is not there */
export function openNftables(): Nftables | undefined {
  const library = load();
  return library && { listTable: (family, name) => listTable(library, family, name) };
}

type Library = ReturnType<typeof declare>;
let loaded: Library | undefined;

function load(): Library | undefined {
  if (loaded) return loaded;
  try {
    loaded = declare(koffi.load('libnftables.so.1'));
  } catch {
    // Not installed; what else could be wrong with it, the program will say.
    return undefined;
  }
  return loaded;
}

function declare(library: ReturnType<typeof koffi.load>) {
  return {
    create: library.func('void *nft_ctx_new(uint32_t flags)') as (flags: number) => unknown,
    free: library.func('void nft_ctx_free(void *context)') as (context: unknown) => void,
    setFlags: library.func('void nft_ctx_output_set_flags(void *context, unsigned int flags)') as (context: unknown, flags: number) => void,
    bufferOutput: library.func('int nft_ctx_buffer_output(void *context)') as (context: unknown) => number,
    bufferErrors: library.func('int nft_ctx_buffer_error(void *context)') as (context: unknown) => number,
    run: library.func('int nft_run_cmd_from_buffer(void *context, const char *commands)') as (context: unknown, commands: string) => number,
    output: library.func('const char *nft_ctx_get_output_buffer(void *context)') as (context: unknown) => string | null,
    errors: library.func('const char *nft_ctx_get_error_buffer(void *context)') as (context: unknown) => string | null,
  };
}

// A context each time: it opens its netlink socket in the namespace that the thread is in.
function listTable(library: Library, family: string, name: string): string | undefined {
  const context = library.create(0);
  if (context === null) throw new Error('libnftables has no memory');
  try {
    library.setFlags(context, STATELESS);
    if (library.bufferOutput(context) !== 0 || library.bufferErrors(context) !== 0) throw new Error('libnftables has no memory');
    if (library.run(context, `list table ${family} ${name}`) === 0) return library.output(context) ?? '';
    const said = (library.errors(context) ?? '').trim().split('\n')[0] ?? '';
    if (/No such file or directory/.test(said)) return undefined;
    throw new Error(`nft list table ${family} ${name}: ${said}`);
  } finally {
    library.free(context);
  }
}
