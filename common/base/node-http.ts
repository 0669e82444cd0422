/**
 * node:http as `require` gives it. An import of it reads all that it exports, and with that loads the undici behind its WebSocket and
 * MessageEvent, which nobody here uses: 80 ms of processor and megabytes, in every process and every worker's thread. Types are imported from
 * node:http as ever; scripts/imports.ts watches the rest.
 */
export const http: typeof import('node:http') = process.getBuiltinModule('node:http');
