/** The version that every component reports; releases change it together with package.json (a test compares them). */
export const VERSION = '0.1.0';
