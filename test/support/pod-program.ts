/** Programs of this folder for pods, which have no files of ours: given to `node --input-type=module -e`. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** @param file its name. @returns its text, with what it imports from this folder in the import's place */
export const podProgram = (file: string): string =>
  read(file)
    .replace(/^import .* from '\.\/(.*)';$/gm, (_import, other: string) => read(other))
    // Kubernetes would take $(…) for a variable.
    .replaceAll('$(', () => '$$(');

const read = (file: string): string => readFileSync(join(import.meta.dirname, file), 'utf8');
