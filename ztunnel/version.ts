/** The version of this build, as `version`, `config_dump` and `istio_build` tell it. */
import packageJson from '../package.json' with { type: 'json' };

export const VERSION: string = packageJson.version;
