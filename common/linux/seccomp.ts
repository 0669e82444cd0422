/**
 * A seccomp filter that a component puts on itself: system calls that it never makes fail with EPERM from then on, in all threads, whatever
 * capabilities it holds. CAP_SYS_ADMIN, which entering a pod's network namespace takes, is most of what root can do; with the filter it is
 * little more than that. A container runtime's default profile does not help here, as it gives back what the capability allows.
 */
import { addressOf, call, isLinuxError, libc, PR_SET_NO_NEW_PRIVS } from './libc.ts';

/** What some component needs and others do not: other programs, other namespaces. */
export type Ability = 'exec' | 'setns' | 'unshare';

type Numbers = readonly [x64: number | undefined, arm64: number | undefined];

// include/uapi/asm-generic/unistd.h, and arch/x86/entry/syscalls/syscall_64.tbl; from 424 on the numbers are the same everywhere.
const NEVER: Readonly<Record<string, Numbers>> = {
  mount: [165, 40],
  umount2: [166, 39],
  pivot_root: [155, 41],
  chroot: [161, 51],
  open_tree: [428, 428],
  move_mount: [429, 429],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  fspick: [433, 433],
  mount_setattr: [442, 442],
  ptrace: [101, 117],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  pidfd_getfd: [438, 438],
  bpf: [321, 280],
  perf_event_open: [298, 241],
  userfaultfd: [323, 282],
  io_uring_setup: [425, 425],
  init_module: [175, 105],
  finit_module: [313, 273],
  delete_module: [176, 106],
  kexec_load: [246, 104],
  kexec_file_load: [320, 294],
  reboot: [169, 142],
  swapon: [167, 224],
  swapoff: [168, 225],
  settimeofday: [164, 170],
  clock_settime: [227, 112],
  clock_adjtime: [305, 266],
  adjtimex: [159, 171],
  acct: [163, 89],
  quotactl: [179, 60],
  add_key: [248, 217],
  request_key: [249, 218],
  keyctl: [250, 219],
  name_to_handle_at: [303, 264],
  open_by_handle_at: [304, 265],
  fanotify_init: [300, 262],
  sethostname: [170, 161],
  setdomainname: [171, 162],
  syslog: [103, 116],
  vhangup: [153, 58],
  mknod: [133, undefined],
  mknodat: [259, 33],
  iopl: [172, undefined],
  ioperm: [173, undefined],
  personality: [135, 92],
};

const ABILITIES: Readonly<Record<Ability, Readonly<Record<string, Numbers>>>> = {
  exec: { execve: [59, 221], execveat: [322, 281] },
  setns: { setns: [308, 268] },
  unshare: { unshare: [272, 97] },
};

// linux/bpf_common.h, linux/seccomp.h, linux/audit.h.
const LOAD_WORD = 0x20;
const JUMP_IF_EQUAL = 0x15;
const JUMP_IF_NOT_BELOW = 0x35;
const RETURN = 0x06;
const ALLOW = 0x7fff0000;
const FAIL_WITH_EPERM = 0x00050001;
const OFFSET_NUMBER = 0;
const OFFSET_ARCHITECTURE = 4;
const X32 = 0x40000000;

const MACHINES: Readonly<Record<string, { readonly column: 0 | 1; readonly architecture: number; readonly seccomp: number }>> = {
  x64: { column: 0, architecture: 0xc000003e, seccomp: 317 },
  arm64: { column: 1, architecture: 0xc00000b7, seccomp: 277 },
};

/**
 * The filter as `struct sock_filter[]`, eight bytes each. It looks at the number alone, so kernels from 5.11 on answer allowed calls from a
 * bitmap without running it.
 * @param arch as in process.arch; undefined is returned for others than x64 and arm64
 */
export function seccompFilter(arch: string, keep: readonly Ability[]): Buffer | undefined {
  const machine = MACHINES[arch];
  if (!machine) return undefined;
  const denied = [
    ...Object.values(NEVER),
    ...Object.entries(ABILITIES).flatMap(([ability, calls]) => (keep.some((kept) => kept === ability) ? [] : Object.values(calls))),
  ].flatMap((numbers) => numbers[machine.column] ?? []);
  // Another architecture's calls have other numbers: none of them is needed.
  const program = [
    instruction(LOAD_WORD, OFFSET_ARCHITECTURE),
    instruction(JUMP_IF_EQUAL, machine.architecture, 1, 0),
    instruction(RETURN, FAIL_WITH_EPERM),
    instruction(LOAD_WORD, OFFSET_NUMBER),
    instruction(JUMP_IF_NOT_BELOW, X32, 0, 1),
    instruction(RETURN, FAIL_WITH_EPERM),
    ...denied.flatMap((number) => [instruction(JUMP_IF_EQUAL, number, 0, 1), instruction(RETURN, FAIL_WITH_EPERM)]),
    instruction(RETURN, ALLOW),
  ];
  return Buffer.concat(program);
}

const SET_MODE_FILTER = 1;
/** All threads, and no slow-down of their code against speculation: nobody else's code runs in them. */
const FLAGS = 1 | 4;

/**
 * Puts the filter on the whole process, for good, and gives up gaining privileges by running a program.
 * @returns false where this kernel has no seccomp, or the machine no filter. @throws {LinuxError}
 */
export function installSeccompFilter(keep: readonly Ability[]): boolean {
  const filter = seccompFilter(process.arch, keep);
  const machine = MACHINES[process.arch];
  if (!filter || !machine) return false;
  call('prctl', 'PR_SET_NO_NEW_PRIVS', () => libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  const program = Buffer.alloc(16);
  program.writeUInt16LE(filter.length / 8, 0);
  program.writeBigUInt64LE(addressOf(filter), 8);
  try {
    const thread = call('seccomp', undefined, () => libc.syscall(machine.seccomp, SET_MODE_FILTER, FLAGS, program));
    if (thread !== 0) throw new Error(`the seccomp filter could not be put on thread ${thread}`);
    return true;
  } catch (error) {
    if (isLinuxError(error, 'ENOSYS', 'EINVAL')) return false;
    throw error;
  }
}

/** A jump goes over so many instructions, where the condition holds and where not. */
function instruction(code: number, operand: number, whenTrue = 0, whenFalse = 0): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16LE(code, 0);
  bytes.writeUInt8(whenTrue, 2);
  bytes.writeUInt8(whenFalse, 3);
  bytes.writeUInt32LE(operand, 4);
  return bytes;
}
