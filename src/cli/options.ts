/** Flags that several commands share, and what is made of them before any work begins. */
import { BACKENDS, PRECISIONS } from "../base/choices.ts";
import { invalidInput } from "../base/errors.ts";
import { printable, show } from "../base/printable.ts";
import { SIMPLE, TILED } from "../kernels/choices.ts";
import type { ChoiceStore } from "../gpu/choiceStore.ts";
import { choiceFile } from "../node/choiceFile.ts";
import type { KernelChoice } from "../kernels/kernel.ts";
import { parseMixdqConfig, type MixdqConfig } from "../quant/config.ts";
import type { Backend, Precision } from "../base/types.ts";
import { parseSafetensors, type StoredTensor } from "../weights/safetensors.ts";
import { readBytes, readText } from "../node/inputFiles.ts";
import { modelFiles } from "../node/modelPlaces.ts";
import type { ModelFiles } from "../weights/files.ts";
import { choice, integer, text, toggle, withDefault, type TensorName, type Values } from "./flags.ts";

/** How a model is run; a command leaves out what it does not allow. */
export const RUN_FLAGS = {
  precision: choice(PRECISIONS, "default fp16"),
  config: text("mixdq.json", "which layers of the UNet run in which bits"),
  backend: withDefault(choice(BACKENDS, "what computes"), "webgpu"),
  adapter: withDefault(text("NAME", "auto, gpu, lavapipe, swiftshader, or a part of an adapter's name"), "auto"),
  kernels: choice(["direct", "tiled"], "one variant of all kernels; default: what is known or measured to be fast"),
  "no-f16": toggle("without 16-bit arithmetic, also where the adapter has it"),
  "no-share": toggle("a place of its own in GPU memory for every activation"),
  debug: withDefault(integer("1 times and choices, 2 kernel by kernel, 3 all values", "1..3"), 0, "0"),
} as const;

/** Which parts of a model are taken from elsewhere, and what its own settings have wrong. */
export const PART_FLAGS = {
  variant: text("NAME", "the weights of a diffusers folder that are named so: fp16, bf16, non_ema"),
  vae: text("DIR|FILE", "another VAE: a diffusers folder, its vae/, or a .safetensors file, also a tiny one"),
  "text-encoder": text("DIR|FILE", "other text encoders with their tokenizers: a diffusers folder, or a single file"),
  "config-from": text(
    "DIR",
    "a diffusers folder whose configs and tokenizers are used, also one with CLIP's vocabulary alone",
  ),
  "prediction-type": text("TYPE", "what the UNet predicts, for mislabelled files: epsilon, v_prediction or sample"),
} as const;

/** The files of the model that the flags describe. Throws `invalid-input`, `invalid-model`, `network`. */
export function readFiles(model: string, flags: Values<typeof PART_FLAGS>): Promise<ModelFiles> {
  return modelFiles(model, {
    variant: flags.variant,
    vae: flags.vae,
    textEncoder: flags["text-encoder"],
    configFrom: flags["config-from"],
    predictionType: flags["prediction-type"],
  });
}

/** The same for a device alone: nothing says what is run on it. */
export const { precision: _precision, config: _config, backend: _backend, ...DEVICE_FLAGS } = RUN_FLAGS;

export interface RunFlags {
  readonly precision: Precision;
  readonly backend: Backend;
  readonly adapter: string;
  readonly kernels: KernelChoice | undefined;
  /** Where the tuner keeps what it measured. */
  readonly choices: ChoiceStore;
  readonly shaderF16: boolean;
  readonly share: boolean;
  readonly debug: number;
}

/** fp16 on WebGPU and on any adapter unless the flags say otherwise. */
export function runFlags(flags: Partial<Values<typeof RUN_FLAGS>>): RunFlags {
  return {
    precision: flags.precision ?? "fp16",
    backend: flags.backend ?? "webgpu",
    adapter: flags.adapter ?? "auto",
    kernels: flags.kernels && (flags.kernels === "tiled" ? TILED : SIMPLE),
    choices: choiceFile(),
    shaderF16: flags["no-f16"] !== true,
    share: flags["no-share"] !== true,
    debug: flags.debug ?? 0,
  };
}

/** How weights are quantized. */
export const WEIGHT_FLAGS = {
  "weight-range": choice(["mse", "minmax"], "how a range of weights is chosen; default mse"),
  symmetric: toggle("weights without zero point"),
  group: choice(["none", "64"], "a scale per 64 input channels, or one per output channel; default none"),
} as const;

export function weightsOf(flags: Values<typeof WEIGHT_FLAGS>): MixdqConfig["weights"] {
  return {
    symmetric: flags.symmetric,
    range: flags["weight-range"] ?? "mse",
    group: flags.group === "64" ? 64 : null,
  };
}

/** The configuration that --config names; undefined without the flag. Throws `invalid-input`. */
export async function readConfig(flags: { readonly config?: string | undefined }): Promise<MixdqConfig | undefined> {
  if (flags.config === undefined) return undefined;
  return parseMixdqConfig(await readText(flags.config, { flag: "--config" }), flags.config);
}

/** What Node reads of a file at once. */
const MAX_TENSOR_BYTES = 2 ** 31 - 1;

/** All tensors of a safetensors file. Throws `invalid-input` where it cannot be read. */
export async function readTensors(file: string): Promise<Map<string, StoredTensor>> {
  return parseSafetensors(await readBytes(file, { most: MAX_TENSOR_BYTES }), file);
}

/** The tensor that a FILE#KEY names. Throws `invalid-input` where there is none. */
export async function readTensor({ file, key, where }: TensorName): Promise<StoredTensor> {
  const tensors = await readTensors(file);
  const found = tensors.get(key);
  if (!found)
    throw invalidInput(
      `${where}: the file has no tensor ${show(key)}, it has ${printable([...tensors.keys()].join(", "), 1000)}.`,
    );
  return found;
}
