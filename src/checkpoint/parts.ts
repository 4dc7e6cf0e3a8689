/**
 * Parts of a model taken from elsewhere, and settings that a model's own files have wrong: each is the same folder, seen
 * through one change.
 */
import { invalidInput, MixdqError } from "../base/errors.ts";
import { show } from "../base/printable.ts";
import { parseConfigText } from "../base/config.ts";
import { isObject } from "../base/json.ts";
import { sizeOf, type ModelFiles } from "../weights/files.ts";
import type { PredictionType } from "./configs.ts";

/** `files` but for the paths that `other` answers for. */
export function overlaid(
  files: ModelFiles,
  other: (path: string) => { readonly files: ModelFiles; readonly path: string } | undefined,
): ModelFiles {
  const at = (path: string) => other(path) ?? { files, path };
  const range: ModelFiles["range"] = async (path, span, signal) => {
    const place = at(path);
    return place.files.range?.(place.path, span, signal);
  };
  return {
    location: files.location,
    isLocal: files.isLocal,
    notes: files.notes,
    refusalOf(path) {
      const place = at(path);
      return place.files.refusalOf?.(place.path);
    },
    text(path, signal) {
      const place = at(path);
      return place.files.text(place.path, signal);
    },
    open(path, signal) {
      const place = at(path);
      return place.files.open(place.path, signal);
    },
    range,
    async size(path, signal) {
      const place = at(path);
      return sizeOf(place.files, place.path, signal);
    },
  };
}

/**
 * `files` with the parts `names` (folders such as `vae`) of `donor`: a diffusers folder, of which those are taken that it has,
 * or the folder of one part alone. Throws `invalid-model` where it has none of them; `option` named it, for the message.
 */
export async function withParts(
  files: ModelFiles,
  donor: ModelFiles,
  names: readonly string[],
  option: string,
  signal?: AbortSignal,
): Promise<ModelFiles> {
  const taken = new Map<string, string>();
  for (const name of names)
    if ((await donor.text(`${name}/config.json`, signal)) !== undefined) taken.set(name, `${name}/`);
  if (taken.size === 0 && (await donor.text("config.json", signal)) !== undefined) taken.set(names[0], "");
  if (taken.size === 0)
    throw new MixdqError(
      "invalid-model",
      `${donor.location}: got no ${names[0]}/config.json and no config.json, expected a diffusers folder or its folder ` +
        `${names[0]}. Check the address that ${option} names.`,
    );
  return overlaid(files, (path) => {
    const [folder, ...rest] = path.split("/");
    const place = taken.get(folder);
    return place === undefined ? undefined : { files: donor, path: place + rest.join("/") };
  });
}

/** `files` with the configs and tokenizers of `donor`, as far as it has them; the weights stay. */
export function withConfigs(files: ModelFiles, donor: ModelFiles): ModelFiles {
  const isSetting = (path: string): boolean => /\.(json|txt)$/.test(path) && !path.includes(".safetensors");
  const own = (path: string): boolean => !isSetting(path) || path === "manifest.json";
  return {
    ...overlaid(files, () => undefined),
    async text(path, signal) {
      if (own(path)) return files.text(path, signal);
      // A folder with nothing but CLIP's vocabulary serves all tokenizers.
      const [, name] = /^tokenizer(?:_2)?\/(vocab\.json|merges\.txt)$/.exec(path) ?? [];
      const found = await donor.text(path, signal);
      if (found !== undefined) return found;
      const shared = name === undefined ? undefined : await donor.text(name, signal);
      return shared ?? files.text(path, signal);
    },
  };
}

/** `files` whose model predicts `prediction`, whatever its scheduler's config says. */
export function withPrediction(files: ModelFiles, prediction: PredictionType): ModelFiles {
  return {
    ...overlaid(files, () => undefined),
    async text(path, signal) {
      const text = await files.text(path, signal);
      if (path !== SCHEDULER || text === undefined) return text;
      const values = parseConfigText(text, `${files.location}/${path}`);
      return isObject(values) ? JSON.stringify({ ...values, prediction_type: prediction }) : text;
    },
  };
}

const SCHEDULER = "scheduler/scheduler_config.json";

/**
 * `files` whose weights are those of a variant (`fp16`, `bf16`, `non_ema`): `diffusion_pytorch_model.fp16.safetensors`. As in
 * diffusers, a part without it has its plain weights. Throws `invalid-input` for no name of one, `invalid-model` where the
 * UNet has none.
 */
export async function withVariant(files: ModelFiles, variant: string, signal?: AbortSignal): Promise<ModelFiles> {
  if (!/^[\w-]{1,40}$/.test(variant))
    throw invalidInput(`variant: got ${show(variant)}, expected a name such as fp16, bf16 or non_ema.`);
  const same = overlaid(files, () => undefined);
  const has = async (path: string): Promise<boolean> => (await same.size!(path, signal)) !== undefined;
  const variantOf = async (path: string): Promise<string | undefined> => {
    const [, stem, index] = WEIGHTS.exec(path) ?? [];
    if (stem === undefined) return FP16.test(path) ? undefined : path;
    const single = `${stem}.${variant}.safetensors`;
    const indexes = [`${stem}.safetensors.index.${variant}.json`, `${single}.index.json`];
    const wanted = index === undefined ? [single] : indexes;
    for (const name of wanted) if (await has(name)) return name;
    // Shards of the variant go before the plain weights in one file.
    if (index === undefined) for (const name of indexes) if (await has(name)) return undefined;
    return path;
  };
  const unet = "unet/diffusion_pytorch_model.safetensors";
  if ((await variantOf(unet)) === unet)
    throw new MixdqError(
      "invalid-model",
      `${files.location}: got no unet/diffusion_pytorch_model.${variant}.safetensors, expected the variant ${variant}. Leave ` +
        "the variant out, or name one that the folder has.",
    );
  const at = async <T>(path: string, read: (path: string) => Promise<T | undefined>): Promise<T | undefined> => {
    const name = await variantOf(path);
    return name === undefined ? undefined : read(name);
  };
  return {
    ...same,
    text: (path, signal) => at(path, (name) => files.text(name, signal)),
    open: (path, signal) => at(path, (name) => files.open(name, signal)),
    size: (path, signal) => at(path, (name) => same.size!(name, signal)),
  };
}

const WEIGHTS = /^(.*\/(?:model|diffusion_pytorch_model))\.safetensors(\.index\.json)?$/;
/** What is looked for where nobody names a variant. */
const FP16 = /\/(model|diffusion_pytorch_model)\.(fp16\.safetensors(\.index\.json)?|safetensors\.index\.fp16\.json)$/;
