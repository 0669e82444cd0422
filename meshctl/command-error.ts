/** Ends a command: one line that says what is wrong and how to mend it. By itself, so that `--help` loads nothing of the cluster. */
export class CommandError extends Error {}
