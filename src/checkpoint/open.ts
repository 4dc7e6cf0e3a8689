/** A model as people name it (a folder, a single file, parts from elsewhere) as one diffusers folder. */
import { invalidInput, MixdqError } from "../base/errors.ts";
import { printable, show } from "../base/printable.ts";
import type { ModelFiles } from "../weights/files.ts";
import { readSafetensorsHeader } from "../weights/safetensors.ts";
import { PREDICTION_TYPES } from "./configs.ts";
import type { Family } from "./contents.ts";
import { checkpointFiles } from "./files.ts";
import { EXPECTED } from "./kinds.ts";
import { overlaid, withConfigs, withParts, withPrediction, withVariant } from "./parts.ts";
import { openSource, whereOf, type FileSource } from "./source.ts";
import { isVae, vaeFiles } from "./vaeFile.ts";

/** A folder, or one file of a folder. */
export type ModelPlace = ModelFiles | FileSource;

/** Where parts come from instead of the model; and what its own settings have wrong. */
export interface ModelParts<Place> {
  /** Of the weights: `fp16`, `bf16`, `non_ema`. */
  readonly variant?: string | undefined;
  /** The folder of a diffusers model whose configs and tokenizers are used; of CLIP's vocabulary alone, too. */
  readonly configFrom?: Place | undefined;
  /** The VAE: a diffusers model, its folder `vae`, or a file. */
  readonly vae?: Place | undefined;
  /** The text encoders, with their tokenizers: a diffusers model, the folder of one encoder, or a single file. */
  readonly textEncoder?: Place | undefined;
  /** `epsilon`, `v_prediction` or `sample`. */
  readonly predictionType?: string | undefined;
}

const isFile = (place: ModelPlace): place is FileSource => "path" in place;

/** Files that are no safetensors by their names: what reads them can run code that is inside. */
const PICKLE = /\.(ckpt|pt|pth|bin|pkl)$/i;
const OTHER_FORMAT = /\.(gguf|onnx|msgpack|h5)$/i;

/** Whether an address or a path is that of a file of weights, rather than of a folder. */
export const namesWeights = (address: string): boolean =>
  /\.(safetensors|sft)$/i.test(address) || PICKLE.test(address) || OTHER_FORMAT.test(address);

/**
 * Reads headers, and configs of the parts that are named. Throws `invalid-model` for files that are no models, with what they
 * are; `invalid-input` for a setting that is none; what the files throw.
 */
export async function openPlaces(
  model: ModelPlace,
  { variant, configFrom, vae, textEncoder, predictionType }: ModelParts<ModelPlace> = {},
  signal?: AbortSignal,
): Promise<ModelFiles> {
  const prediction = PREDICTION_TYPES.find((type) => type === predictionType);
  if (predictionType !== undefined && prediction === undefined)
    throw invalidInput(`prediction-type: got ${show(predictionType)}, expected one of ${PREDICTION_TYPES.join(", ")}.`);
  let files = isFile(model) ? await openFile(model, signal) : model;
  if (variant !== undefined) {
    if (isFile(model))
      throw invalidInput(
        `variant: got ${show(variant)} for ${files.location}, which is one file. Leave the variant out.`,
      );
    files = await withVariant(files, variant, signal);
  }
  if (configFrom !== undefined) files = withConfigs(files, await folder(configFrom, signal));
  if (textEncoder !== undefined) files = await withTextEncoders(files, await folder(textEncoder, signal), signal);
  if (vae !== undefined) {
    const donor = isFile(vae) ? await openVae(vae, await familyOf(files, signal), signal) : vae;
    files = await withParts(files, donor, ["vae"], "vae", signal);
  }
  return prediction === undefined ? files : withPrediction(files, prediction);
}

const folder = async (place: ModelPlace, signal?: AbortSignal): Promise<ModelFiles> =>
  isFile(place) ? openFile(place, signal) : place;

/** A single file as a folder. */
async function openFile(source: FileSource, signal?: AbortSignal): Promise<ModelFiles> {
  refuseFormat(source);
  return checkpointFiles(source, signal);
}

function refuseFormat(source: FileSource): void {
  const [where, name] = [whereOf(source), source.path];
  if (PICKLE.test(name))
    throw new MixdqError(
      "invalid-model",
      `${where}: got a ${name.split(".").at(-1)} file, a pickle, which can run code when it is read; expected ${EXPECTED}. Look ` +
        "for the model's .safetensors file, or convert it (in PyTorch: safetensors.torch.save_file).",
    );
  if (OTHER_FORMAT.test(name))
    throw new MixdqError(
      "invalid-model",
      `${where}: got a file of another format (${printable(name.split(".").at(-1)!)}), expected ${EXPECTED}. Look for the model's ` +
        ".safetensors file.",
    );
}

async function openVae(source: FileSource, family: Family, signal?: AbortSignal): Promise<ModelFiles> {
  refuseFormat(source);
  const header = await readSafetensorsHeader(await openSource(source, signal), whereOf(source), signal);
  return isVae(header) ? vaeFiles(source, header, family) : checkpointFiles(source, signal);
}

/** By the UNet's config: what a VAE's file does not say, its family does. */
async function familyOf(files: ModelFiles, signal?: AbortSignal): Promise<Family> {
  const text = await files.text("unet/config.json", signal);
  return text?.includes('"text_time"') ? "sdxl" : "sd1";
}

/** An encoder and its tokenizer belong together: they are taken from the same place where that has both. */
async function withTextEncoders(files: ModelFiles, donor: ModelFiles, signal?: AbortSignal): Promise<ModelFiles> {
  const names = ["text_encoder", "text_encoder_2"];
  const encoders = await withParts(files, donor, names, "text-encoder", signal);
  const has = async (path: string): Promise<boolean> => (await donor.text(path, signal)) !== undefined;
  const tokenizers: string[] = [];
  for (const name of ["tokenizer", "tokenizer_2"])
    if ((await has(`${name}/tokenizer.json`)) || (await has(`${name}/vocab.json`))) tokenizers.push(name);
  if (tokenizers.length === 0) return encoders;
  return withFolders(encoders, donor, tokenizers);
}

function withFolders(files: ModelFiles, donor: ModelFiles, names: readonly string[]): ModelFiles {
  return overlaid(files, (path) => (names.includes(path.split("/")[0]) ? { files: donor, path } : undefined));
}
