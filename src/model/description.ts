/** What a diffusers folder says about itself: its parts, their configs, its tokenizers. No weights yet. */
import { Config } from "../base/config.ts";
import { createScheduler, type SchedulerFactory } from "../diffusion/scheduler.ts";
import { readUNetConfig, type UNetConfig } from "../diffusion/unet.ts";
import { readVaeConfig, type VaeConfig } from "../diffusion/vae.ts";
import { MixdqError } from "../base/errors.ts";
import type { TextState } from "../text/encoder.ts";
import { createTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import type { ModelFiles } from "../weights/files.ts";
import { readJson } from "../weights/folder.ts";

export interface TextEncoderDescription {
  /** `text_encoder` or `text_encoder_2`. */
  readonly component: string;
  readonly config: Config;
  readonly projects: boolean;
  readonly tokenizer: Tokenizer;
}

export interface ModelDescription {
  readonly location: string;
  /** diffusers' class of the whole, e.g. StableDiffusionXLPipeline. */
  readonly pipeline: string;
  readonly textEncoders: readonly TextEncoderDescription[];
  /** Which of the encoders' states the UNet reads. */
  readonly textState: TextState;
  readonly unet: UNetConfig;
  readonly vae: VaeConfig;
  readonly schedulerName: string;
  readonly createScheduler: SchedulerFactory;
  /** SDXL: without a negative prompt, guidance compares with zeros instead of an empty prompt. */
  readonly zerosForNoNegative: boolean;
  readonly defaultSteps: number;
  readonly defaultWidth: number;
  readonly defaultHeight: number;
}

const TOKENIZERS: Readonly<Record<string, string>> = { text_encoder: "tokenizer", text_encoder_2: "tokenizer_2" };

/** Throws `invalid-model` for missing or contradictory files, naming the file and the key. */
export async function readModel(files: ModelFiles, signal?: AbortSignal): Promise<ModelDescription> {
  const index = new Config("model_index.json", await readJson(files, "model_index.json", signal));
  const json = async (path: string): Promise<Config> => new Config(path, await readJson(files, path, signal));
  const part = (name: string): string | undefined => {
    const entry = index.values[name];
    return Array.isArray(entry) && typeof entry[1] === "string" ? entry[1] : undefined;
  };
  for (const name of ["text_encoder_3", "transformer", "prior"])
    if (part(name)) index.fail(name, "a UNet model of the Stable Diffusion family: this part is not one of it");

  const unet = readUNetConfig(await json("unet/config.json"));
  const vae = readVaeConfig(await json("vae/config.json"));
  const scheduler = await json("scheduler/scheduler_config.json");
  const isXl = unet.addition !== undefined;
  const textEncoders: TextEncoderDescription[] = [];
  for (const [component, tokenizer] of Object.entries(TOKENIZERS)) {
    const kind = part(component);
    if (!kind) continue;
    if (kind !== "CLIPTextModel" && kind !== "CLIPTextModelWithProjection")
      index.fail(component, '"CLIPTextModel" or "CLIPTextModelWithProjection"');
    textEncoders.push({
      component,
      config: await json(`${component}/config.json`),
      projects: kind === "CLIPTextModelWithProjection",
      tokenizer: await readTokenizer(files, tokenizer, signal),
    });
  }
  checkTextWidth(textEncoders, unet, files.location);
  for (const encoder of textEncoders) checkVocabulary(encoder);
  checkLatents(unet, vae, files.location);

  const pipeline = index.className;
  // StableDiffusionPipeline overrules its scheduler's steps_offset.
  const settings =
    isXl || pipeline.startsWith("LatentConsistency") ? scheduler.values : { ...scheduler.values, steps_offset: 1 };
  const [height, width] = unet.sampleSize;
  return {
    location: files.location,
    pipeline,
    textEncoders,
    textState: isXl ? "penultimate" : "last",
    unet,
    vae,
    schedulerName: scheduler.className,
    createScheduler: createScheduler(settings, scheduler.where),
    zerosForNoNegative: isXl && index.boolean("force_zeros_for_empty_prompt", true),
    defaultSteps:
      scheduler.className === "LCMScheduler" ? 4 : scheduler.values["timestep_spacing"] === "trailing" ? 1 : 25,
    defaultWidth: width * vae.scale,
    defaultHeight: height * vae.scale,
  };
}

async function readTokenizer(files: ModelFiles, folder: string, signal?: AbortSignal): Promise<Tokenizer> {
  const text = (name: string): Promise<string | undefined> => files.text(`${folder}/${name}`, signal);
  const [tokenizerJson, vocab, merges, config, specialTokensMap] = await Promise.all([
    text("tokenizer.json"),
    text("vocab.json"),
    text("merges.txt"),
    text("tokenizer_config.json"),
    text("special_tokens_map.json"),
  ]);
  return createTokenizer({ tokenizerJson, vocab, merges, config, specialTokensMap }, folder);
}

/** Every token must have a row in the encoder's table: beyond its end, a GPU reads whatever it likes. */
function checkVocabulary({ component, config, tokenizer }: TextEncoderDescription): void {
  const size = config.integer("vocab_size");
  if (tokenizer.largestId >= size)
    config.fail(
      "vocab_size",
      `at least ${tokenizer.largestId + 1}, as ${TOKENIZERS[component]} has token ids up to there`,
    );
}

/** Inpainting and editing UNets read an image beside the latents; they have more channels than the VAE. */
function checkLatents(unet: UNetConfig, vae: VaeConfig, location: string): void {
  if (unet.inChannels === vae.latentChannels && unet.outChannels === vae.latentChannels) return;
  throw new MixdqError(
    "invalid-model",
    `${location}: unet/config.json has in_channels ${unet.inChannels} and out_channels ${unet.outChannels}, expected ` +
      `latent_channels ${vae.latentChannels} of vae/config.json. Use a model for text to image (not for inpainting or editing).`,
  );
}

/** The encoders' states side by side must be as wide as the UNet's cross-attention reads. */
function checkTextWidth(encoders: readonly TextEncoderDescription[], unet: UNetConfig, location: string): void {
  const width = encoders.reduce((sum, { config }) => sum + config.integer("hidden_size"), 0);
  if (width !== unet.crossAttentionDim)
    throw new MixdqError(
      "invalid-model",
      `${location}: the text encoders give ${width} channels (${encoders.map((e) => e.component).join(" + ") || "none"}), ` +
        `unet/config.json's cross_attention_dim asks for ${unet.crossAttentionDim}. The parts do not belong together: take all from one model.`,
    );
  if (unet.addition && !encoders.at(-1)?.projects)
    throw new MixdqError(
      "invalid-model",
      `${location}: an SDXL UNet needs a CLIPTextModelWithProjection for its pooled prompt, model_index.json names none. Check the model, or save it again.`,
    );
}
