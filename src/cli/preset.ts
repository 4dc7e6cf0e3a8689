/** `mixdq preset`: a bit-width configuration from calibration data alone, the same bits for nearly every layer. */
import { RANGE_RULES, readCalibration, type Calibration } from "../mixdq/calibration/file.ts";
import { quantizableLayers } from "../mixdq/calibration/layers.ts";
import { presetConfig, PRESETS } from "../mixdq/calibration/preset.ts";
import { buildUNet } from "../diffusion/unet.ts";
import { writeMixdqConfig } from "../quant/config.ts";
import { modelFolder } from "./defaults.ts";
import { diskFiles } from "../node/diskFiles.ts";
import { readText } from "../node/inputFiles.ts";
import { number, oneOf, readFlags, required, weightFlags } from "./options.ts";
import { assertWritable, writeWhole } from "../node/outputFiles.ts";
import { invalidInput } from "../base/errors.ts";
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
  required(flags, "precision", "w8a8 or w4a8");
  const precision = oneOf(flags, "precision", Object.keys(PRESETS) as (keyof typeof PRESETS)[])!;
  const range = oneOf(flags, "range-activations", RANGE_RULES) ?? "minmax";
  const weights = weightFlags(flags);
  const protect = number(flags, "protect") ?? 0.01;
  if (protect < 0 || protect > 1) throw invalidInput(`--protect ${protect}: expected a share of the layers, 0 to 1.`);
  const out = required(flags, "out", "the mixdq.json to write");
  await assertWritable(out);
  const calibration = await readCalibrationFile(required(flags, "calibration", "the calibration.json of this model"));
  const unet = await readUNet(await diskFiles(modelFolder(flags)));
  const [height, width] = unet.sampleSize;
  const layers = quantizableLayers(buildUNet(unet, { batch: 1, height, width, tokens: 77 }, "unet", "f32"));
  const config = presetConfig(layers, calibration, {
    ...PRESETS[precision],
    range,
    protect,
    weights,
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
  return readCalibration(await readText(file), file);
}
