import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { invalidInput } from "../base/errors.ts";
import type { Flag } from "./flags.ts";

/** Of a checkout; the built command line lies two folders below its root. */
const IN_CHECKOUT = path.resolve(import.meta.dirname ?? ".", "../../models/postcard");

/**
 * The default model's folder: what the environment variable MIXDQ_MODEL names, else the checkout's, else that of the
 * package mixdq. undefined where there is none: mixdq-web alone comes without a model.
 */
export function defaultModel(): string | undefined {
  return process.env["MIXDQ_MODEL"] ?? [IN_CHECKOUT, inPackage()].find((folder) => folder && existsSync(folder));
}

function inPackage(): string | undefined {
  try {
    const file = createRequire(import.meta.url).resolve("mixdq/package.json");
    return path.join(path.dirname(file), "models/postcard");
  } catch {
    return undefined;
  }
}

/** `--model`; without it the default model. Throws `invalid-input` where there is none. */
export const modelFlag = (what = "a diffusers folder or a pack"): Flag<string> => ({
  placeholder: "DIR|FILE",
  help: `${what}; default: the model in models/postcard`,
  parse: modelFolder,
});

/** The folder that was given, else the default model's. Throws `invalid-input` where there is none. */
export function modelFolder(given: string | undefined): string {
  const folder = given ?? defaultModel();
  if (folder !== undefined) return folder;
  throw invalidInput(
    "--model is missing, and mixdq-web comes without a model. Give the folder of a diffusers model or of a pack, or run " +
      "npm install mixdq, the package with the default model.",
  );
}
