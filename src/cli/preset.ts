/** `mixdq preset`: a bit-width configuration from calibration data alone, the same bits for nearly every layer. */
import { RANGE_RULES, readCalibration, type Calibration } from "../mixdq/calibration/file.ts";
import { quantizableLayers } from "../mixdq/calibration/layers.ts";
import { presetConfig, PRESETS } from "../mixdq/calibration/preset.ts";
import { buildUNet } from "../diffusion/unet.ts";
import { writeMixdqConfig } from "../quant/config.ts";
import { command } from "./command.ts";
import { modelFiles } from "../node/modelFiles.ts";
import { readText } from "../node/inputFiles.ts";
import { choice, number, required, text, toggle, withDefault, type Values } from "./flags.ts";
import { modelFlag } from "./defaults.ts";
import { WEIGHT_FLAGS, weightsOf } from "./options.ts";
import { assertWritable, writeWhole, tell } from "../node/outputFiles.ts";
import { invalidInput } from "../base/errors.ts";
import { readUNet } from "./unet.ts";

const FLAGS = {
  model: modelFlag("a diffusers folder (or one with only unet/config.json)"),
  calibration: required(
    text("FILE", "what mixdq calibrate wrote for this model"),
    "the calibration.json of this model",
  ),
  precision: required(
    choice(Object.keys(PRESETS) as (keyof typeof PRESETS)[], "bits of weights and inputs"),
    "w8a8 or w4a8",
  ),
  out: required(text("mixdq.json", "the file to write"), "the mixdq.json to write"),
  "range-activations": withDefault(choice(RANGE_RULES, "which of the calibrated ranges"), "minmax"),
  ...WEIGHT_FLAGS,
  protect: withDefault(number("of each group's layers to leave in 16-bit float", "SHARE"), 0.01),
  "no-bos": toggle("without MixDQ's BOS-aware ranges, for comparison (calibrate so, too)"),
  "no-split": toggle("without split shortcuts, for comparison"),
};

export const preset = command({
  name: "preset",
  summary: "a mixdq.json from calibration data alone, the same bits for nearly every layer",
  flags: FLAGS,
  run: writePreset,
});

async function writePreset(flags: Values<typeof FLAGS>): Promise<void> {
  const { precision, protect, out } = flags;
  if (protect < 0 || protect > 1) throw invalidInput(`--protect ${protect}: expected a share of the layers, 0 to 1.`);
  await assertWritable(out);
  const calibration = await readCalibrationFile(flags.calibration);
  const unet = await readUNet(await modelFiles(flags.model));
  const [height, width] = unet.sampleSize;
  const layers = quantizableLayers(buildUNet(unet, { batch: 1, height, width, tokens: 77 }, "unet", "f32"));
  const config = presetConfig(layers, calibration, {
    ...PRESETS[precision],
    range: flags["range-activations"],
    protect,
    weights: weightsOf(flags),
    bos: !flags["no-bos"],
    split: !flags["no-split"],
  });
  await writeWhole(out, new TextEncoder().encode(writeMixdqConfig(config)));
  const left = Object.entries(config.provenance["protected"] as Record<string, number>);
  tell(
    `${out}: ${precision}, ${config.layers.size} of ${layers.length} layers in integers, ` +
      `${config.averageWeightBits} bits a weight over all`,
  );
  for (const [path, sqnr] of left) tell(`  in 16-bit float: ${path}, ${sqnr.toFixed(1)} dB with 8-bit input`);
}

/** Throws `invalid-input` for a file that is missing, too large or no calibration. */
export async function readCalibrationFile(file: string): Promise<Calibration> {
  return readCalibration(await readText(file), file);
}
