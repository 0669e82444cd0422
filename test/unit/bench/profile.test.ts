import assert from 'node:assert/strict';
import { test } from 'node:test';
import { partsOf, readReport } from '../../../bench/support/profile.ts';

// As perf 6.1 prints it.
const REPORT = `# Samples: 10K of event 'cpu-clock:pppH'
# Overhead  Command          Shared Object         Symbol

    20.00%  data-0           [kernel.kallsyms]     [k] tcp_sendmsg_locked
    10.00%  data-0           [JIT] tid 4711        [.] 0x00007f1b0c0a1b2c
    10.00%  data-0           node                  [.] Builtins_LoadIC
     8.00%  data-0           node                  [.] v8::internal::Scavenger::Process
     7.00%  node-V8Worker    node                  [.] v8::internal::compiler::GraphReducer::Reduce
     5.00%  node-V8Worker    libc.so.6             [.] __memmove_avx_unaligned_erms
     6.00%  data-1           node                  [.] node::StreamBase::WriteBuffer
     4.00%  data-1           node                  [.] gcm_ghash_avx
     3.00%  tokio-runtime-w  ztunnel               [.] h2::hpack::table::Table::index
     2.00%  tokio-runtime-w  ztunnel               [.] aws_lc_0_47_0_aes_hw_encrypt
     1.00%  tokio-runtime-w  ztunnel               [.] ztunnel::proxy::inbound::Inbound::serve_connect
`;

test('the functions of a profile are told apart by what part of the program they are', () => {
  const shares = [...partsOf(readReport(REPORT))].map(([part, share]) => [part, Math.round(share * 100)]);
  assert.deepEqual(Object.fromEntries(shares), {
    kernel: 20,
    'JavaScript, compiled': 10,
    "V8's built-in functions and runtime": 10,
    'collecting garbage': 13,
    'compiling (V8)': 7,
    'Node and libuv': 6,
    TLS: 6,
    'HTTP/2': 3,
    'the rest of the program': 1,
  });
});
