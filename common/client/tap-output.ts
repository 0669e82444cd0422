/** What `meshctl tap` is shown, as a proxy hands it out. */

export interface TapOutput {
  /** Whole lines of JSON. @returns false where they cannot be taken now: then they are lost, and the proxy counts them */
  lines(text: string): boolean;
  /** The tap is over. */
  end(): void;
}
