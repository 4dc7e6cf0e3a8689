import path from "node:path";

/** The model that comes with the package, beside the command line's build (dist-cli/<build>/mixdq.mjs). */
export const DEFAULT_MODEL = path.resolve(import.meta.dirname ?? ".", "../../models/postcard");
