/**
 * Loaded before every program of the checkout that runs in a pod: Node writes its compile cache at a program's orderly end, which a
 * playground's pods rarely have. Written once after the start, it makes the next start twice as fast.
 */
import { flushCompileCache } from 'node:module';

const AFTER_START_MS = 3000;
setTimeout(flushCompileCache, AFTER_START_MS).unref();
