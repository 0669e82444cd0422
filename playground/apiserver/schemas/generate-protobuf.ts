/**
 * Makes `protobuf.txt`, the field numbers of Kubernetes' protobuf encoding, from checkouts of `kubernetes/api` and
 * `kubernetes/apimachinery`: `scripts/node playground/apiserver/schemas/generate-protobuf.ts API APIMACHINERY`.
 * One line for each message: its name, then `number:field:type`, with `*` after a repeated type and `map<…>` for maps.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [api = '', apimachinery = ''] = process.argv.slice(2);

const GROUPS =
  `core apps batch autoscaling policy discovery coordination events networking rbac admissionregistration scheduling storage node
  authentication authorization`.split(/\s+/);

const messages = new Map<string, string[]>();
for (const group of GROUPS) read(join(api, group, 'v1/generated.proto'));
read(join(api, 'autoscaling/v2/generated.proto'));
read(join(apimachinery, 'pkg/apis/meta/v1/generated.proto'));

const lines = [...messages].map(([name, fields]) => `${name} ${fields.join(' ')}\n`).sort();
writeFileSync(join(import.meta.dirname, 'protobuf.txt'), lines.join(''));

function read(file: string): void {
  const text = readFileSync(file, 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '');
  const packageName = short(/^package ([\w.]+);/m.exec(text)?.[1] ?? '');
  for (const [, message = '', body = ''] of text.matchAll(/^message (\w+) \{([^}]*)\}/gm)) {
    if (message.endsWith('List') && /\bitems\b/.test(body) && /metadata/.test(body)) continue;
    const fields = [...body.matchAll(/(optional|repeated|map<(\w+), ([\w.]+)>)\s*([\w.]+)?\s+(\w+) = (\d+)/g)].map(
      ([, label = '', , mapValue, type = '', field, number]) => {
        if (label.startsWith('map')) return `${number}:${field}:map<${qualified(mapValue ?? '', packageName)}>`;
        return `${number}:${field}:${qualified(type, packageName)}${label === 'repeated' ? '*' : ''}`;
      },
    );
    messages.set(`${packageName}.${message}`, fields);
  }
}

function qualified(type: string, packageName: string): string {
  if (/^[a-z0-9]+$/.test(type)) return type;
  return type.includes('.') ? short(type.replace(/^\./, '')) : `${packageName}.${type}`;
}

/** `k8s.io.api.core.v1.Pod` as `core.v1.Pod`. */
function short(name: string): string {
  return name.replace(/^k8s\.io\.(api|apimachinery\.pkg\.apis|apimachinery\.pkg\.api|apimachinery\.pkg\.util|apimachinery\.pkg)\./, '');
}
