/** `mixdq plan`: what one picture takes, from configs alone: no weights, no GPU. */
import { setDebug } from "../base/debug.ts";
import { Config } from "../base/config.ts";
import { invalidInput } from "../base/errors.ts";
import { PRECISIONS } from "../base/choices.ts";
import type { Precision } from "../base/types.ts";
import { buildUNet } from "../diffusion/unet.ts";
import { TILED } from "../kernels/choices.ts";
import { footprintOf, type Footprint } from "../model/footprint.ts";
import { describeSdxlTurbo } from "../model/known/sdxlTurbo.ts";
import type { GraphSource } from "../model/graphs.ts";
import { readModel } from "../model/description.ts";
import { chooseQuantization } from "../model/quantization.ts";
import { checkRequest, isGuided } from "../model/request.ts";
import { readSchedulers, type SchedulerChoice } from "../model/schedulers.ts";
import { quantizableLayers } from "../mixdq/calibration/layers.ts";
import { uniformConfig } from "../mixdq/calibration/preset.ts";
import { diskFiles } from "../node/diskFiles.ts";
import { assertWritable, tell, writeWhole } from "../node/outputFiles.ts";
import type { MixdqConfig } from "../quant/config.ts";
import { openPack } from "../weights/pack.ts";
import { modelFolder } from "./defaults.ts";
import { command } from "./command.ts";
import { choice, integer, number, text, toggle, type Values } from "./flags.ts";
import { readConfig, RUN_FLAGS, runFlags } from "./options.ts";

const FLAGS = {
  model: text("DIR", "a diffusers folder or a pack; its weights may be missing. Default: the model in models/postcard"),
  like: choice(["sdxl-turbo"], "a known model instead, by its shapes"),
  precision: choice(PRECISIONS, "default fp16; --like takes the same bits for all layers but those a preset raises"),
  config: text("mixdq.json", "the bits of each layer"),
  width: integer("pixels; default: the model's own", "W"),
  height: integer("pixels; default: the model's own", "H"),
  "guidance-scale": number("over 1 the UNet sees two images; default: the model's own", "X"),
  kernels: choice(["direct", "tiled"], "default tiled, what GPUs run"),
  "no-f16": toggle("a device without shader-f16"),
  json: text("FILE", "the figures as JSON"),
  debug: RUN_FLAGS.debug,
};

export const plan = command({
  name: "plan",
  summary: "what one picture takes, from configs alone: no weights, no GPU",
  flags: FLAGS,
  run: printPlan,
});

/** No device of today binds more; what is larger is refused, as every device would. */
const LIMITS = { maxBindingBytes: 2 ** 32 - 4, maxBufferBytes: 2 ** 32 };

async function printPlan(flags: Values<typeof FLAGS>): Promise<void> {
  const { kernels, shaderF16, debug } = runFlags(flags);
  setDebug(debug);
  const out = flags.json;
  if (out !== undefined) await assertWritable(out);
  const { name, model, precision, config, size } = await readPlanned(flags);
  const footprint = footprintOf(model, {
    precision,
    config,
    ...size,
    caps: { ...TILED, ...kernels, shaderF16, packedDot: true, maxWorkgroupsPerDimension: 65_535 },
    limits: LIMITS,
  });
  if (out !== undefined)
    await writeWhole(
      out,
      new TextEncoder().encode(`${JSON.stringify({ model: name, precision, ...footprint }, undefined, 2)}\n`),
    );
  tell(describe(name, precision, footprint));
}

interface Planned {
  readonly name: string;
  readonly model: GraphSource;
  readonly precision: Precision;
  readonly config: MixdqConfig | undefined;
  readonly size: { readonly width: number; readonly height: number; readonly isGuided: boolean };
}

async function readPlanned(flags: Values<typeof FLAGS>): Promise<Planned> {
  const { like } = flags;
  const asked = { precision: flags.precision, config: await readConfig(flags) };
  const request = {
    prompt: "",
    width: flags.width,
    height: flags.height,
    guidanceScale: flags["guidance-scale"],
  };
  if (like === undefined) {
    const folder = modelFolder(flags.model);
    const files = await diskFiles(folder);
    const pack = await openPack(files);
    const model = await readModel(pack?.files ?? files);
    const chosen = await chooseQuantization(pack?.files ?? files, pack, asked);
    return { name: folder, model, ...chosen, size: sizeOf(checkRequest(request, { ...model, ...FROM_TEXT }), model) };
  }
  if (flags.model !== undefined) throw invalidInput("--like and --model: expected one of them. Leave one out.");
  const model = describeSdxlTurbo();
  const precision = asked.precision ?? "fp16";
  const [height, width] = model.unet.sampleSize.map((latents) => latents * model.vae.scale) as [number, number];
  const schedulerOf = sdxlTurboScheduler();
  const defaults = { ...model, ...FROM_TEXT, location: like, defaultWidth: width, defaultHeight: height, schedulerOf };
  const config = asked.config ?? (precision === "w8a8" || precision === "w4a8" ? uniform(model, precision) : undefined);
  return { name: like, model, precision, config, size: sizeOf(checkRequest(request, defaults), model) };
}

/** What a picture takes does not depend on whether another one is its beginning. */
const FROM_TEXT = { unetReads: "latents", requiresAestheticsScore: false } as const;

/** As SDXL-Turbo's folder has it: one step, no guidance. */
function sdxlTurboScheduler(): SchedulerChoice {
  const values = { _class_name: "EulerAncestralDiscreteScheduler", timestep_spacing: "trailing" };
  const config = new Config("scheduler/scheduler_config.json", values);
  const pipeline = "StableDiffusionXLPipeline";
  return readSchedulers({ config, named: undefined, pipeline, isXl: true, embedsGuidance: false });
}

function sizeOf(settings: ReturnType<typeof checkRequest>, model: GraphSource): Planned["size"] {
  const { width, height } = settings;
  return { width, height, isGuided: isGuided(settings, model) };
}

function uniform({ unet }: GraphSource, precision: "w8a8" | "w4a8"): MixdqConfig {
  const [height, width] = unet.sampleSize;
  const graph = buildUNet(unet, { batch: 1, height, width, tokens: 77 }, "unet", "f32");
  return uniformConfig(quantizableLayers(graph), precision);
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
const giga = (count: number): string => (count / 1e9).toFixed(2);

function describe(name: string, precision: Precision, footprint: Footprint): string {
  const { width, height, stages, components } = footprint;
  const row = (cells: readonly string[]): string =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(16) : cell.padStart(12))).join("");
  return [
    `${name}, ${width}x${height}, ${precision}`,
    `GPU memory at most ${megabytes(footprint.peakBytes)}: encoding ${megabytes(stages.encode)}, denoising ` +
      `${megabytes(stages.denoise)}, decoding ${megabytes(stages.decode)}; largest binding ${megabytes(footprint.largestBindingBytes)}`,
    `download ${megabytes(footprint.downloadBytes)}`,
    `${footprint.pipelines} pipelines; a UNet step ${footprint.dispatches} dispatches, ${footprint.warmDispatches} with the ` +
      "text's keys and values kept",
    row(["", "weights", "activations", "download", "dispatches", "pipelines", "GMAC int8", "f16", "f32"]),
    ...Object.entries(components).map(([component, part]) =>
      row([
        component,
        megabytes(part.weightBytes),
        megabytes(part.activationBytes),
        megabytes(part.downloadBytes),
        String(part.dispatches),
        String(part.pipelines),
        giga(part.macs.int8),
        giga(part.macs.f16),
        giga(part.macs.f32),
      ]),
    ),
  ].join("\n");
}
