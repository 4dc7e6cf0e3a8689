/** The text of every shader, by file name. The only file that knows where they lie and how a bundler finds them. */
const FILES = import.meta.glob<string>("../../shaders/**/*.wgsl", { query: "?raw", import: "default", eager: true });

export const SHADERS: ReadonlyMap<string, string> = new Map(
  Object.entries(FILES).map(([path, text]) => [path.replace(/^.*\//, "").replace(/\.wgsl$/, ""), text]),
);
