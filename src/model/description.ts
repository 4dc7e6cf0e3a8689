/** What a diffusers folder says about itself: its parts, their configs, its tokenizers. No weights yet. */
import { Config } from "../base/config.ts";
import type { SchedulerFactory } from "../diffusion/scheduler.ts";
import { readUNetConfig, type UNetConfig } from "../diffusion/unet.ts";
import { readVaeConfig, type VaeConfig } from "../diffusion/vae.ts";
import { MixdqError } from "../base/errors.ts";
import type { TextState } from "../text/encoder.ts";
import { createTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import type { ModelFiles } from "../weights/files.ts";
import { readJson } from "../weights/folder.ts";
import { isStableDiffusion, readSchedulers, type SchedulerChoice } from "./schedulers.ts";

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
  /** What the UNet reads beside the latents: nothing, a mask and the picture with a hole, or the picture to edit. */
  readonly unetReads: "latents" | "masked" | "edited";
  /** SDXL's refiner: it is told how good the picture should look, and always begins with one. */
  readonly requiresAestheticsScore: boolean;
  /** The model's own scheduler; `schedulerOf` gives others. */
  readonly schedulerName: string;
  readonly createScheduler: SchedulerFactory;
  readonly schedulerOf: SchedulerChoice;
  /** SDXL: without a negative prompt, guidance compares with zeros instead of an empty prompt. */
  readonly zerosForNoNegative: boolean;
  readonly defaultSteps: number;
  readonly defaultGuidanceScale: number;
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

  const requiresAestheticsScore = index.boolean("requires_aesthetics_score", false);
  const pipeline = index.className;
  const unet = readUNetConfig(withSampleSize(await json("unet/config.json"), pipeline));
  const vae = readVaeConfig(await json("vae/config.json"));
  const isXl = unet.addition !== undefined;
  const schedulerOf = readSchedulers({
    config: await json("scheduler/scheduler_config.json"),
    named: part("scheduler"),
    pipeline,
    isXl,
    embedsGuidance: unet.timeCondProjDim !== undefined,
  });
  const scheduler = schedulerOf();
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
  checkTextWidth(textEncoders, unet, { location: files.location, requiresAestheticsScore });
  for (const encoder of textEncoders) checkVocabulary(encoder);

  // StableDiffusionPipeline would pass the tokenizer's attention mask on.
  if (isStableDiffusion({ pipeline, isXl })) textEncoders[0].config.only("use_attention_mask", false);
  const [height, width] = unet.sampleSize;
  return {
    location: files.location,
    pipeline,
    textEncoders,
    textState: isXl ? "penultimate" : "last",
    unet,
    vae,
    unetReads: whatUNetReads(unet, vae, files.location),
    requiresAestheticsScore,
    schedulerName: scheduler.name,
    createScheduler: scheduler.create,
    schedulerOf,
    zerosForNoNegative: isXl && index.boolean("force_zeros_for_empty_prompt", true),
    defaultSteps: scheduler.defaultSteps,
    defaultGuidanceScale: scheduler.defaultGuidanceScale,
    defaultWidth: width * vae.scale,
    defaultHeight: height * vae.scale,
  };
}

/**
 * Converters before diffusers 0.9 wrote a sample_size of 32 for models of 64; StableDiffusionPipeline takes any single number
 * below 64 of such a config as 64. Where nothing is said, SDXL's pipeline takes 128.
 */
function withSampleSize(config: Config, pipeline: string): Config {
  const { sample_size: size, _diffusers_version: version } = config.values;
  const isXl = config.values["addition_embed_type"] === "text_time";
  const [, major, minor = "0"] = /^v?(\d+)(?:\.(\d+))?/.exec(String(version ?? "")) ?? [];
  const isOld = Number(major) === 0 && Number(minor) < 9;
  const isOverruled = isOld && typeof size === "number" && size < 64 && isStableDiffusion({ pipeline, isXl });
  if (!isOverruled && (!isXl || (size !== undefined && size !== null))) return config;
  return new Config(config.where, { ...config.values, sample_size: isOverruled ? 64 : 128 });
}

async function readTokenizer(files: ModelFiles, folder: string, signal?: AbortSignal): Promise<Tokenizer> {
  const text = (name: string): Promise<string | undefined> => files.text(`${folder}/${name}`, signal);
  const [tokenizerJson, vocab, merges, config, specialTokensMap, addedTokens] = await Promise.all([
    text("tokenizer.json"),
    text("vocab.json"),
    text("merges.txt"),
    text("tokenizer_config.json"),
    text("special_tokens_map.json"),
    text("added_tokens.json"),
  ]);
  return createTokenizer({ tokenizerJson, vocab, merges, config, specialTokensMap, addedTokens }, folder);
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

/** Inpainting and editing UNets read more channels than the VAE's latents have: by their number it is known what. */
function whatUNetReads(unet: UNetConfig, vae: VaeConfig, location: string): ModelDescription["unetReads"] {
  const { latentChannels: own } = vae;
  if (unet.outChannels === own) {
    if (unet.inChannels === own) return "latents";
    if (unet.inChannels === 2 * own + 1) return "masked";
    if (unet.inChannels === 2 * own) return "edited";
  }
  throw new MixdqError(
    "invalid-model",
    `${location}: unet/config.json has in_channels ${unet.inChannels} and out_channels ${unet.outChannels}, expected ` +
      `both to be latent_channels ${own} of vae/config.json, or in_channels ${2 * own + 1} (inpainting) or ${2 * own} ` +
      `(InstructPix2Pix). The parts do not belong together: take all from one model.`,
  );
}

/** The encoders' states side by side must be as wide as the UNet's cross-attention reads. */
function checkTextWidth(
  encoders: readonly TextEncoderDescription[],
  unet: UNetConfig,
  { location, requiresAestheticsScore }: Pick<ModelDescription, "location" | "requiresAestheticsScore">,
): void {
  const width = encoders.reduce((sum, { config }) => sum + config.integer("hidden_size"), 0);
  if (width !== unet.crossAttentionDim)
    throw new MixdqError(
      "invalid-model",
      `${location}: the text encoders give ${width} channels (${encoders.map((e) => e.component).join(" + ") || "none"}), ` +
        `unet/config.json's cross_attention_dim asks for ${unet.crossAttentionDim}. The parts do not belong together: take all from one model.`,
    );
  if (!unet.addition) return;
  const last = encoders.at(-1);
  if (!last?.projects)
    throw new MixdqError(
      "invalid-model",
      `${location}: an SDXL UNet needs a CLIPTextModelWithProjection for its pooled prompt, model_index.json names none. Check the model, or save it again.`,
    );
  const { timeEmbedDim, inputDim } = unet.addition;
  const numbers = requiresAestheticsScore ? 5 : 6;
  const wanted = last.config.integer("projection_dim", 512) + numbers * timeEmbedDim;
  if (wanted !== inputDim)
    throw new MixdqError(
      "invalid-model",
      `${location}: unet/config.json's projection_class_embeddings_input_dim is ${inputDim}, expected ${wanted}: the pooled ` +
        `prompt and ${numbers} numbers (requires_aesthetics_score is ${requiresAestheticsScore}). The parts do not belong ` +
        `together: take all from one model.`,
    );
}
