import assert from 'node:assert/strict';
import { STATUS_CODES } from 'node:http';
import { test } from 'node:test';
import { statusText } from '../../../common/base/status-text.ts';

test("a status has the words that Node's own table has for it, and none where it has none", () => {
  for (let status = 100; status < 600; status++) assert.equal(statusText(status), STATUS_CODES[status] ?? '', String(status));
});
