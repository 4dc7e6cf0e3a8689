/** The text of the worker's script. The package's build puts it here; a checkout, whose bundler finds the file, has none. */
export const WORKER_SOURCE: string | undefined = undefined;
