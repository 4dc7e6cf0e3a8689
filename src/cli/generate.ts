/** `mixdq generate`: one picture, and what was computed on its way. */
import { encodePng } from "../api/image.ts";
import { loadPipeline, type Intermediates } from "../pipeline.ts";
import { checkRequest } from "../model/request.ts";
import { readModel, type ModelDescription } from "../model/description.ts";
import { readFloats } from "../weights/convert.ts";
import { openPack } from "../weights/pack.ts";
import { writeSafetensors, type TensorToWrite } from "../weights/safetensors.ts";
import { requestNodeGpu } from "../node/adapter.ts";
import { diskFiles } from "../node/diskFiles.ts";
import { modelFolder } from "./defaults.ts";
import {
  integer,
  number,
  numbers,
  precisionFlag,
  readConfig,
  readFlags,
  readTensors,
  required,
  RUN_FLAGS,
  runFlags,
  seedFlag,
  text,
} from "./options.ts";
import { assertWritable, writeWhole } from "../node/outputFiles.ts";
import { printable } from "../base/printable.ts";
import { invalidInput } from "../base/errors.ts";
import { progressLine } from "../node/progress.ts";

export const GENERATE_USAGE = `mixdq generate --prompt TEXT --out image.png
  --model DIR           a diffusers folder or a pack; default: the model in models/postcard
  --negative-prompt TEXT, --guidance N      classifier-free guidance above 1; default: none for models distilled to few
                        steps, else 7.5 (SDXL 5)
  --guidance-rescale X  0..1: how far guidance is brought back to the deviation without it; default 0
  --steps N             default: the model's own; 1 or 4 of models distilled to few, else 50
  --timesteps 999,749,… the timesteps themselves instead of --steps, where the scheduler takes them
  --scheduler CLASS     another class of diffusers' than the model's own, made of its config
  --eta X               0..1: noise that DDIM and TCD put back at each step; default 0
  --seed N              any 64-bit seed, as PyTorch takes; default: random
  --width W --height H  pixels, multiples of 8; default: the model's own
  --precision fp32|fp16|w8a8|w4a8           default fp16; w8a8 and w4a8: the model's mixdq.<precision>.json;
                        a pack runs in what it was made for
  --config mixdq.json   which layers of the UNet run in which bits
  --latents FILE#KEY    start noise of unit variance, [1, C, H/8, W/8], from a safetensors file;
                        --seed then seeds only the noise between steps
  --dump FILE           write latents, prompt_embeds, pooled, unet_out, final_latents and image, F32, NCHW
  --adapter auto|gpu|lavapipe|swiftshader|NAME      --backend webgpu|ort-webgpu|ort-wasm
  --kernels direct|tiled   --no-f16   --no-share   --debug 1..3`;

const FLAGS = {
  ...RUN_FLAGS,
  prompt: { type: "string" },
  "negative-prompt": { type: "string" },
  out: { type: "string" },
  steps: { type: "string" },
  timesteps: { type: "string" },
  scheduler: { type: "string" },
  eta: { type: "string" },
  "guidance-rescale": { type: "string" },
  seed: { type: "string" },
  guidance: { type: "string" },
  width: { type: "string" },
  height: { type: "string" },
  latents: { type: "string" },
  dump: { type: "string" },
} as const;

export async function generate(args: readonly string[]): Promise<void> {
  const { flags } = readFlags(args, FLAGS);
  const run = runFlags(flags);
  const config = await readConfig(flags);
  const prompt = text(flags, "prompt");
  if (prompt === undefined) throw invalidInput("--prompt is missing: say what the picture should show.");
  const out = required(flags, "out", "the PNG file to write");
  const dump = text(flags, "dump");
  for (const file of [out, ...(dump ? [dump] : [])]) await assertWritable(file);
  const source = text(flags, "latents");
  const start = source === undefined ? undefined : await readLatents(source);
  const files = await diskFiles(modelFolder(flags));
  // What can be refused is refused before a byte of weights is read.
  const pack = await openPack(files);
  const model = await readModel(pack?.files ?? files);
  const { scale } = model.vae;
  const request = withoutUndefined({
    prompt,
    negativePrompt: text(flags, "negative-prompt"),
    seed: seedFlag(flags),
    numInferenceSteps: integer(flags, "steps"),
    timesteps: numbers(flags, "timesteps"),
    scheduler: text(flags, "scheduler"),
    eta: number(flags, "eta"),
    guidanceScale: number(flags, "guidance"),
    guidanceRescale: number(flags, "guidance-rescale"),
    width: integer(flags, "width") ?? (start && start.width * scale),
    height: integer(flags, "height") ?? (start && start.height * scale),
  });
  const { width, height } = checkRequest(request, model);
  if (start) checkLatents(start, { width, height }, model, `--latents ${source}`);

  const progress = progressLine();
  const pipeline = await loadPipeline({
    ...run,
    precision: precisionFlag(flags),
    config,
    ...(run.backend === "webgpu" && { gpu: await requestNodeGpu(run.adapter) }),
    files,
    onProgress: ({ status, loadedBytes, file, progress: percent }) =>
      progress.show(`${status} ${percent.toFixed(0)} % ${(loadedBytes / 1e6).toFixed(1)} MB ${file ?? ""}`),
  });
  let seen: Intermediates | undefined;
  const image = await pipeline
    .generate(request, {
      latents: start?.values,
      onStep: (event) => progress.show(event.type === "step" ? `step ${event.step} of ${event.steps}` : event.type),
      onIntermediates: (values) => (seen = values),
    })
    .finally(() => pipeline.dispose());
  progress.end();

  for (const warning of image.warnings) console.error(`warning: ${printable(warning, 1000)}`);
  if (dump) await writeWhole(dump, dumpOf(seen!, image, pipeline.info));
  await writeWhole(out, encodePng(image));
  const { encodeMs, unetMs, decodeMs } = image.stats;
  console.log(
    `${out}: ${image.width}x${image.height}, seed ${image.seed}, ${image.stats.steps} step(s), ${pipeline.info.precision} on ` +
      `${pipeline.info.adapter}; text ${encodeMs.toFixed(0)} ms, UNet ${unetMs.toFixed(0)} ms, VAE ${decodeMs.toFixed(0)} ms`,
  );
}

/** [1, channels, height, width], in latents. */
interface StartNoise {
  readonly values: Float32Array;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

/** FILE#KEY: a tensor of a safetensors file. */
async function readLatents(source: string): Promise<StartNoise> {
  const where = `--latents ${source}`;
  const hash = source.lastIndexOf("#");
  if (hash < 1 || hash === source.length - 1)
    throw invalidInput(`${where}: expected FILE#KEY, a safetensors file and a tensor in it.`);
  const [file, key] = [source.slice(0, hash), source.slice(hash + 1)];
  const tensors = await readTensors(file);
  const tensor = tensors.get(key);
  if (!tensor)
    throw invalidInput(`${where}: the file has no tensor "${key}", it has ${[...tensors.keys()].join(", ")}.`);
  const [batch, channels, height, width] = tensor.shape as [number, number, number, number];
  if (tensor.shape.length !== 4 || batch !== 1)
    throw invalidInput(`${where}: got shape [${tensor.shape.join(", ")}], expected [1, channels, height, width].`);
  return { values: readFloats(tensor, where).slice(), channels, height, width };
}

/** The picture's size follows from the latents unless it is given, and then must agree with them. */
function checkLatents(
  { channels, height, width }: StartNoise,
  picture: { width: number; height: number },
  { unet, vae: { scale } }: ModelDescription,
  where: string,
): void {
  const got = [1, channels, height, width].join(", ");
  const expected = [1, unet.inChannels, picture.height / scale, picture.width / scale].join(", ");
  if (got !== expected)
    throw invalidInput(
      `${where}: got shape [${got}], expected [${expected}] for ${picture.width}x${picture.height} pixels. ` +
        `Leave --width and --height out to take the latents' own size.`,
    );
}

function dumpOf(
  values: Intermediates,
  image: { width: number; height: number },
  info: { latentChannels: number; vaeScale: number },
): Uint8Array {
  const [height, width] = [image.height / info.vaeScale, image.width / info.vaeScale];
  const channels = info.latentChannels;
  const of = (data: Float32Array, shape: number[]): TensorToWrite => ({ dtype: "F32", shape, data });
  const latentShape = [1, channels, height, width];
  const { tokens } = values;
  return writeSafetensors({
    latents: of(values.latents, latentShape),
    prompt_embeds: of(values.promptEmbeds, [1, tokens, values.promptEmbeds.length / tokens]),
    ...(values.pooled && { pooled: of(values.pooled, [1, values.pooled.length]) }),
    unet_out: of(values.unetOut, [values.unetOut.length / (channels * height * width), channels, height, width]),
    final_latents: of(values.finalLatents, latentShape),
    image: of(values.image, [1, 3, image.height, image.width]),
  });
}

function withoutUndefined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as never;
}
