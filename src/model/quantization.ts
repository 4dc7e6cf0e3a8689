/** Which bit-width configuration a run uses, and the one condition that its BOS cache puts on the text. */
import { MixdqError } from "../base/errors.ts";
import { parseMixdqConfig, type MixdqConfig } from "../quant/config.ts";
import type { Precision } from "../base/types.ts";
import { noSuchFile, type ModelFiles } from "../weights/files.ts";
import { httpFile, type HttpOptions } from "../weights/http.ts";
import type { Pack } from "../weights/pack.ts";

/** What a run computes in. */
export interface Quantized {
  readonly precision: Precision;
  readonly config: MixdqConfig | undefined;
}

/**
 * Precision and configuration: as asked for, else the model's own; of a pack its own. Throws `invalid-input` where a pack
 * is asked for another, `unsupported` where a folder has none.
 */
export async function chooseQuantization(
  files: ModelFiles,
  pack: Pack | undefined,
  asked: HttpOptions & {
    readonly precision?: Precision | undefined;
    readonly config?: MixdqConfig | string | undefined;
  },
  signal?: AbortSignal,
): Promise<Quantized> {
  if (pack) return quantizationOfPack(pack, asked, signal);
  const { precision = "fp16", config } = asked;
  if (typeof config === "string") return { precision, config: await fetchConfig(config, signal, asked) };
  return { precision, config: config ?? (await configOfModel(files, precision, signal)) };
}

async function quantizationOfPack(
  { manifest, files }: Pack,
  { precision, config }: { readonly precision?: Precision | undefined; readonly config?: unknown },
  signal?: AbortSignal,
): Promise<Quantized> {
  const own = parseMixdqConfig((await files.text(manifest.config, signal))!, `${files.location}/${manifest.config}`);
  const packed = precisionOf(own);
  const advice = `Leave it out (or ask for ${packed}), or use the model that the pack was made of.`;
  if (config !== undefined)
    throw new MixdqError("invalid-input", `${files.location} is a pack with a configuration of its own. ${advice}`);
  if (precision === "fp16" || precision === "fp32")
    throw new MixdqError(
      "invalid-input",
      `${files.location} is a pack whose UNet has weights in integers: it cannot run in ${precision}. ${advice}`,
    );
  return { precision: precision ?? packed, config: own };
}

/**
 * The text state that a pack's BOS cache was computed from, [channels] once; undefined without a cache. Throws
 * `invalid-model` where the pack contradicts itself.
 */
export function bosOfPack(
  { manifest: { bos }, files }: Pack,
  config: MixdqConfig | undefined,
  channels: number,
): readonly Float32Array[] | undefined {
  const expected = config?.bos ? [channels] : [];
  const got = bos.map(({ length }) => length);
  if (got.join() === expected.join()) return config?.bos ? bos : undefined;
  throw new MixdqError(
    "invalid-model",
    `${files.location}: got BOS states of [${got.join(", ")}] channels, expected [${expected.join(", ")}], as the pack's ` +
      "configuration and unet/config.json say. Write the pack again with mixdq quantize.",
  );
}

/** The precision whose name comes nearest to a configuration's bits. */
const precisionOf = ({ layers }: MixdqConfig): Precision =>
  [...layers.values()].some(({ weightBits }) => weightBits < 8) ? "w4a8" : "w8a8";

/** The model's own configuration of a precision; undefined for precisions that need none. */
export async function configOfModel(
  files: ModelFiles,
  precision: Precision,
  signal?: AbortSignal,
): Promise<MixdqConfig | undefined> {
  if (precision !== "w8a8" && precision !== "w4a8") return undefined;
  const name = `mixdq.${precision}.json`;
  const text = await files.text(name, signal);
  if (text === undefined)
    throw new MixdqError(
      "unsupported",
      `${files.location} has no ${name}: ${precision} needs the scales of every layer's input. Run "mixdq calibrate" and ` +
        `"mixdq preset", or give a configuration of your own.`,
    );
  return parseMixdqConfig(text, `${files.location}/${name}`);
}

/** The configuration at an absolute address. Throws `invalid-input` where there is none, `network`. */
export async function fetchConfig(address: string, signal?: AbortSignal, options?: HttpOptions): Promise<MixdqConfig> {
  const { files, path: name } = httpFile(address, options);
  const text = await files.text(name, signal);
  if (text === undefined) {
    const advice = "Check the address of the configuration.";
    throw noSuchFile(files, name, "a bit-width configuration", advice);
  }
  return parseMixdqConfig(text, `${files.location}/${name}`);
}

/** Of the largest value. Text encoders compute the first token the same way for every prompt; drivers may round. */
const BOS_TOLERANCE = 1e-3;

/**
 * Keys and values of the first token come from a cache, so the text must begin with the token that the cache was made of.
 * `hidden` [images, tokens, channels]. Throws `invalid-input`.
 */
export function checkFirstTokens(hidden: Float32Array, images: number, bos: readonly Float32Array[]): void {
  const perImage = hidden.length / images;
  for (let image = 0; image < images; image++) {
    const state = bos[Math.min(image, bos.length - 1)];
    const greatest = state.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const worst = state.reduce((most, value, c) => Math.max(most, Math.abs(value - hidden[image * perImage + c])), 0);
    if (worst > BOS_TOLERANCE * greatest)
      throw new MixdqError(
        "invalid-input",
        `text ${image}: its first token differs from the BOS token whose keys and values the configuration keeps in 16 bits ` +
          `(by ${worst.toPrecision(3)}, largest value ${greatest.toPrecision(3)}). A missing negative prompt is all zeros in ` +
          `SDXL: give one, even an empty one, or leave guidance at 0; other text encoders need a cache of their own.`,
      );
  }
}
