/** A match of text as policies write it, compiled: `*` at an end stands for anything, alone for whatever is not empty. */
export type TextTest =
  | { readonly exact: string }
  | { readonly prefix: string }
  | { readonly suffix: string }
  | { readonly presence: true }
  | { readonly template: RegExp };
