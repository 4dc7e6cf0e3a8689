/** `mixdq generate`: one picture, and what was computed on its way. */
import { encodePng } from "../api/image.ts";
import { MAX_PICTURE_BYTES, readPicture } from "../api/inputImage.ts";
import { loadPipeline, type Intermediates } from "../pipeline.ts";
import { checkRequest } from "../model/request.ts";
import { readModel, type ModelDescription } from "../model/description.ts";
import { readFloats } from "../weights/convert.ts";
import { openPack } from "../weights/pack.ts";
import { writeSafetensors, type TensorToWrite } from "../weights/safetensors.ts";
import { requestNodeGpu } from "../node/adapter.ts";
import { diskFiles } from "../node/diskFiles.ts";
import { PRECISIONS } from "../base/choices.ts";
import { command } from "./command.ts";
import {
  choice,
  integer,
  number,
  numbers,
  required,
  seed,
  tensor,
  text,
  toggle,
  type TensorName,
  type Values,
} from "./flags.ts";
import { modelFlag } from "./defaults.ts";
import { readConfig, readTensor, RUN_FLAGS, runFlags } from "./options.ts";
import { assertWritable, writeWhole, tell } from "../node/outputFiles.ts";
import { readBytes } from "../node/inputFiles.ts";
import { invalidInput } from "../base/errors.ts";
import type { PixelData } from "../base/types.ts";
import { printable } from "../base/printable.ts";
import { progressLine } from "../node/progress.ts";

const FLAGS = {
  model: modelFlag("a diffusers folder or a pack"),
  prompt: required(text("TEXT", "what the picture shows"), "say what the picture should show", true),
  out: required(text("image.png", "the PNG file to write"), "the PNG file to write"),
  "negative-prompt": text("TEXT", "what it does not show, with guidance above 1"),
  guidance: number(
    "classifier-free guidance above 1; default: none for models distilled to few steps, else 7.5 (SDXL 5)",
  ),
  "guidance-rescale": number("0..1: how far guidance is brought back to the deviation without it; default 0", "X"),
  steps: integer("denoising steps; default: the model's own, 1 or 4 of models distilled to few, else 50"),
  timesteps: numbers("999,749,…", "the timesteps themselves instead of --steps, where the scheduler takes them"),
  scheduler: text("CLASS", "another class of diffusers' than the model's own, made of its config"),
  eta: number("0..1: noise that DDIM and TCD put back at each step; default 0", "X"),
  seed: seed("of the start noise, any 64-bit seed that PyTorch takes; default: random"),
  width: integer("pixels, a multiple of 8; default: the model's own", "W"),
  height: integer("pixels, a multiple of 8; default: the model's own", "H"),
  image: text("FILE.png", "a picture to begin with, at its own size unless --width and --height say another"),
  strength: number(
    "above 0, up to 1: how much of --image is given up, so large a part of --steps is taken; default 0.8, SDXL 0.3, with --mask 1",
    "S",
  ),
  mask: text("FILE.png", "of --image's size: white where it is repainted, black where it is kept"),
  "keep-unmasked": toggle("what is black in --mask stays as it is in --image, byte for byte"),
  "mask-padding": integer("draw only the surroundings of --mask, N pixels wider, and lay them over --image"),
  "image-guidance": number("of models that edit pictures as told: how much --image counts, from 1 on; default 1.5"),
  latents: tensor(
    "start noise of unit variance, [1, C, H/8, W/8], from a safetensors file; --seed then seeds only the noise between steps",
  ),
  dump: text("FILE", "write latents, prompt_embeds, pooled, unet_out, final_latents and image, F32, NCHW"),
  ...RUN_FLAGS,
  precision: choice(
    PRECISIONS,
    "default fp16; w8a8 and w4a8: the model's mixdq.<precision>.json; a pack runs in what it was made for",
  ),
};

export const generate = command({
  name: "generate",
  summary: "one picture, with its parameters inside, and what was computed on its way",
  flags: FLAGS,
  run: drawPicture,
});

async function drawPicture(flags: Values<typeof FLAGS>): Promise<void> {
  const run = runFlags(flags);
  const config = await readConfig(flags);
  const { prompt, out, dump, latents } = flags;
  for (const file of [out, ...(dump ? [dump] : [])]) await assertWritable(file);
  const start = latents && (await readLatents(latents));
  const files = await diskFiles(flags.model);
  // What can be refused is refused before a byte of weights is read.
  const pack = await openPack(files);
  const model = await readModel(pack?.files ?? files);
  const { scale } = model.vae;
  const request = withoutUndefined({
    prompt,
    negativePrompt: flags["negative-prompt"],
    seed: flags.seed,
    numInferenceSteps: flags.steps,
    timesteps: flags.timesteps,
    scheduler: flags.scheduler,
    eta: flags.eta,
    guidanceScale: flags.guidance,
    guidanceRescale: flags["guidance-rescale"],
    strength: flags.strength,
    ...(flags["keep-unmasked"] && { keepUnmasked: true }),
    maskPadding: flags["mask-padding"],
    imageGuidanceScale: flags["image-guidance"],
    image: await readFlagged(flags.image, "--image"),
    mask: await readFlagged(flags.mask, "--mask"),
    width: flags.width ?? (start && start.width * scale),
    height: flags.height ?? (start && start.height * scale),
  });
  const { width, height } = checkRequest(request, model);
  if (start) checkLatents(start, { width, height }, model, latents!.where);

  const progress = progressLine();
  const pipeline = await loadPipeline({
    ...run,
    precision: flags.precision,
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
  if (dump) await writeWhole(dump, dumpOf(seen!, { width, height }, pipeline.info));
  await writeWhole(out, encodePng(image));
  const { encodeMs, unetMs, decodeMs } = image.stats;
  tell(
    `${out}: ${image.width}x${image.height}, seed ${image.seed}, ${image.stats.steps} step(s), ${pipeline.info.precision} on ` +
      `${pipeline.info.adapter}; text ${encodeMs.toFixed(0)} ms, UNet ${unetMs.toFixed(0)} ms, VAE ${decodeMs.toFixed(0)} ms`,
  );
}

/** The picture that a flag names. */
async function readFlagged(file: string | undefined, flag: string): Promise<PixelData | undefined> {
  if (file === undefined) return undefined;
  return readPicture(await readBytes(file, { flag, most: MAX_PICTURE_BYTES }), `${flag} ${printable(file)}`);
}

/** [1, channels, height, width], in latents. */
interface StartNoise {
  readonly values: Float32Array;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

async function readLatents(source: TensorName): Promise<StartNoise> {
  const { where } = source;
  const tensor = await readTensor(source);
  const [batch, channels, height, width] = tensor.shape as [number, number, number, number];
  if (tensor.shape.length !== 4 || batch !== 1)
    throw invalidInput(`${where}: got shape [${tensor.shape.join(", ")}], expected [1, channels, height, width].`);
  return { values: readFloats(tensor, where).slice(), channels, height, width };
}

/** The picture's size follows from the latents unless it is given, and then must agree with them. */
function checkLatents(
  { channels, height, width }: StartNoise,
  picture: { width: number; height: number },
  { vae: { scale, latentChannels } }: ModelDescription,
  where: string,
): void {
  const got = [1, channels, height, width].join(", ");
  const expected = [1, latentChannels, picture.height / scale, picture.width / scale].join(", ");
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
