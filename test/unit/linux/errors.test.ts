import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';
import { isLinuxError, LinuxError } from '../../../common/linux/libc.ts';
import { raiseOpenFileLimit } from '../../../common/linux/limits.ts';
import { Netns } from '../../../common/linux/netns.ts';
import { fdOf, socketFromFd } from '../../../common/linux/node.ts';
import { closeFd } from '../../../common/linux/sockets.ts';

test('an error names the call, what it was about, the code and the text', () => {
  const error = new LinuxError('bind', 98, '10.0.0.1:80');
  assert.equal(error.message, 'bind 10.0.0.1:80: EADDRINUSE (address already in use)');
  assert.equal(error.code, 'EADDRINUSE');
  assert.equal(error.errno, 98);
  assert.ok(isLinuxError(error, 'EPERM', 'EADDRINUSE'));
  assert.ok(!isLinuxError(error, 'EPERM'));
});

test('a number that libuv does not know gets its C name', () => {
  assert.equal(new LinuxError('open', 117).code, 'EUCLEAN');
});

test('a namespace file that is not there is named', () => {
  assert.throws(() => Netns.open('/proc/0/ns/net'), { code: 'ENOENT', message: /\/proc\/0\/ns\/net/ });
});

test('a file that is no namespace, and a namespace that is no network, are refused and not kept open', () => {
  assert.throws(() => Netns.open('/proc/self/stat'), { code: 'EINVAL', message: /stat is no network namespace/ });
  assert.throws(() => Netns.open('/proc/self/ns/mnt'), { code: 'EINVAL', message: /mnt is no network namespace/ });
});

test('closing what is not open says EBADF', () => {
  assert.throws(() => closeFd(1_000_000), { code: 'EBADF' });
});

test('a descriptor that is no socket is refused by Node and closed', () => {
  const netns = Netns.current();
  assert.throws(() => socketFromFd(netns.fd));
  assert.throws(() => closeFd(netns.fd), { code: 'EBADF' });
});

test('a socket without a descriptor has none to give', () => {
  assert.throws(() => fdOf(new net.Socket()), /no descriptor/);
});

test('the limit of open files is raised to the hard one', () => {
  assert.ok(raiseOpenFileLimit() >= 1024);
});
