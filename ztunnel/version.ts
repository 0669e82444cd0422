/** The version of this build, as `version`, `config_dump` and `istio_build` tell it. */
import { readFileSync } from 'node:fs';

const packageJson = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { readonly version: string };

export const VERSION: string = packageJson.version;
