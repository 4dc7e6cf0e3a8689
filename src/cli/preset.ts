/** `mixdq preset`: a bit-width configuration from calibration data alone, the same bits for nearly every layer. */
import { readFile, stat } from "node:fs/promises";
import { MAX_CALIBRATION_BYTES, readCalibration, type Calibration } from "../calibration/file.ts";
import { quantizableLayers } from "../calibration/layers.ts";
import { presetConfig, PRESETS, RANGE_RULES } from "../calibration/preset.ts";
import { buildUNet } from "../diffusion/unet.ts";
import { writeMixdqConfig } from "../quant/config.ts";
import { DEFAULT_MODEL } from "./defaults.ts";
import { diskFiles } from "./diskFiles.ts";
import { assertWritable, invalid, number, readFlags, required, text, writeWhole } from "./options.ts";
import { readUNet } from "./unet.ts";

export const PRESET_USAGE = `mixdq preset --calibration FILE --precision w8a8|w4a8 --out mixdq.json
  --model DIR           a diffusers folder (or one with only unet/config.json); default: the model in models/postcard
  --calibration FILE    what mixdq calibrate wrote for this model
  --range-activations minmax|moving|percentile      default minmax
  --weight-range mse|minmax   default mse      --symmetric   weights without zero point; default: with
  --group 64            a scale per 64 input channels; default: one per output channel
  --protect SHARE       of each group's layers to leave in 16-bit float; default 0.01
  --no-bos, --no-split  without MixDQ's BOS-aware ranges (calibrate so, too) or split shortcuts, for comparison`;

const FLAGS = {
  model: { type: "string" },
  calibration: { type: "string" },
  precision: { type: "string" },
  out: { type: "string" },
  "range-activations": { type: "string" },
  "weight-range": { type: "string" },
  symmetric: { type: "boolean" },
  group: { type: "string" },
  protect: { type: "string" },
  "no-bos": { type: "boolean" },
  "no-split": { type: "boolean" },
} as const;

export async function preset(args: readonly string[]): Promise<void> {
  const { flags } = readFlags(args, FLAGS);
  const choice = <T extends string>(name: string, choices: readonly T[], fallback?: T): T => {
    const value =
      fallback === undefined ? required(flags, name, choices.join(" or ")) : (text(flags, name) ?? fallback);
    if (!choices.includes(value as T)) throw invalid(`--${name} ${value}: expected ${choices.join(", ")}.`);
    return value as T;
  };
  const precision = choice("precision", Object.keys(PRESETS) as (keyof typeof PRESETS)[]);
  const range = choice("range-activations", RANGE_RULES, "minmax");
  const weightRange = choice("weight-range", ["mse", "minmax"] as const, "mse");
  const group = choice("group", ["none", "64"] as const, "none");
  const protect = number(flags, "protect") ?? 0.01;
  if (protect < 0 || protect > 1) throw invalid(`--protect ${protect}: expected a share of the layers, 0 to 1.`);
  const out = required(flags, "out", "the mixdq.json to write");
  await assertWritable(out);
  const calibration = await readCalibrationFile(required(flags, "calibration", "the calibration.json of this model"));
  const unet = await readUNet(await diskFiles(text(flags, "model") ?? DEFAULT_MODEL));
  const [height, width] = unet.sampleSize;
  const layers = quantizableLayers(buildUNet(unet, { batch: 1, height, width, tokens: 77 }, "unet", "f32"));
  const config = presetConfig(layers, calibration, {
    ...PRESETS[precision],
    range,
    protect,
    weights: { symmetric: flags["symmetric"] === true, range: weightRange, group: group === "64" ? 64 : null },
    bos: flags["no-bos"] !== true,
    split: flags["no-split"] !== true,
  });
  await writeWhole(out, new TextEncoder().encode(writeMixdqConfig(config)));
  const left = Object.entries(config.provenance["protected"] as Record<string, number>);
  console.log(
    `${out}: ${precision}, ${config.layers.size} of ${layers.length} layers in integers, ` +
      `${config.averageWeightBits} bits a weight over all`,
  );
  for (const [path, sqnr] of left) console.log(`  in 16-bit float: ${path}, ${sqnr.toFixed(1)} dB with 8-bit input`);
}

/** Throws `invalid-input` for a file that is missing, too large or no calibration. */
export async function readCalibrationFile(file: string): Promise<Calibration> {
  const size = (await stat(file).catch(() => undefined))?.size ?? 0;
  if (size > MAX_CALIBRATION_BYTES)
    throw invalid(`${file}: got ${size} bytes, expected a calibration.json of at most ${MAX_CALIBRATION_BYTES}.`);
  const content = await readFile(file, "utf8").catch((error: Error) => {
    throw invalid(`${file} cannot be read: ${error.message}.`);
  });
  return readCalibration(content, file);
}
