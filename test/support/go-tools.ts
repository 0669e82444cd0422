/** Programs in Go that tests call: built once where Go and its modules can be reached, kept for later runs. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const TOOLS = fileURLToPath(new URL('../../node_modules/.cache/go-tools', import.meta.url));

/**
 * @param folder below the cache, where several programs have the same name
 * @param module path and version, as `go install` takes them
 * @returns the program; undefined where it was never built and cannot be
 */
export function goTool(module: string, folder = '.'): string | undefined {
  const [path = ''] = module.split('@');
  const bin = join(TOOLS, folder);
  const built = join(bin, path.slice(path.lastIndexOf('/') + 1));
  if (existsSync(built)) return built;
  try {
    mkdirSync(bin, { recursive: true });
    execFileSync('go', ['install', module], { env: { ...process.env, GOBIN: bin }, stdio: 'pipe', timeout: 240_000 });
    return built;
  } catch {
    // No Go, or no way to its modules.
    return undefined;
  }
}
