/** All that a page without a bundler can use: the package's build makes one file of it. */
export * from "./index.ts";
export * from "./element.ts";
