/** The outcome of one attempt of a probe or hook. */
export interface Attempt {
  readonly success: boolean;
  /** For the event, where it failed. */
  readonly detail: string;
}
