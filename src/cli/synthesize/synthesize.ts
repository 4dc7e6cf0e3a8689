/**
 * `mixdq synthesize`: a UNet of random weights in the shapes of a real one, as diffusers saves it, so that conversion,
 * packing, loading and a step can be exercised at full size by whoever has no licence or no patience for the real one.
 */
import { lstat, mkdir, open, readFile, rename, rm, stat, statfs, writeFile, type FileHandle } from "node:fs/promises";
import path from "node:path";
import { Config } from "../../base/config.ts";
import { readJson } from "../../base/json.ts";
import { buildUNet, readUNetConfig } from "../../diffusion/unet.ts";
import { elementCount } from "../../graph/ops.ts";
import { command } from "../command.ts";
import { integer, required, text, withDefault, type Values } from "../flags.ts";
import { invalidInput } from "../../base/errors.ts";
import { describeDuration, progressBar } from "../../node/progressBar.ts";
import { SDXL_TURBO_UNET } from "../../model/known/sdxlTurbo.ts";
import { tell } from "../../node/outputFiles.ts";
import { randomTensor, type TensorShape } from "./syntheticWeights.ts";

const HALF_BYTES = 2;
const DEFAULT_SHARD_BYTES = 2e9;
/** Headers, the index, and the file system's own needs. */
const SPARE_BYTES = 64 * 2 ** 20;
const MAX_CONFIG_BYTES = 2 ** 20;
/** More shards than this are not read again (weights/folder.ts). */
const MAX_SHARDS = 1000;

const FLAGS = {
  out: required(text("DIR", "gets unet/, which must not be there yet"), "the folder to write unet/ into"),
  like: withDefault(text("MODEL", "sdxl-turbo, or a unet/config.json with the shapes"), "sdxl-turbo"),
  seed: withDefault(integer("of the weights"), 0),
  "shard-bytes": withDefault(integer("largest file"), DEFAULT_SHARD_BYTES),
};

export const synthesize = command({
  name: "synthesize",
  summary:
    "unet/ of random weights in the shapes of a real model: config.json and fp16 weights, no other part of a model",
  flags: FLAGS,
  run: writeUNet,
});

async function writeUNet({ out, like, seed, "shard-bytes": shardBytes }: Values<typeof FLAGS>): Promise<void> {
  if (!Number.isSafeInteger(seed)) throw invalidInput(`--seed ${seed}: expected a whole number up to 2^53 - 1.`);
  const config = like === "sdxl-turbo" ? SDXL_TURBO_UNET : await readConfig(like);
  const started = performance.now();
  const bar = progressBar("synthesize", "parameters");
  const { parameters, files } = await writeSyntheticUNet({
    folder: out,
    config,
    seed,
    shardBytes,
    onProgress: (done, total) => bar.show(done, total),
  });
  bar.end();
  tell(
    `${path.join(out, "unet")}: ${parameters.toLocaleString("en")} random parameters like ${like}, seed ${seed}, in ` +
      `${files} file(s); ${describeDuration(performance.now() - started)}`,
  );
}

async function readConfig(file: string): Promise<object> {
  const info = await stat(file).catch(() => undefined);
  if (!info?.isFile()) throw invalidInput(`--like ${file}: no such file, expected sdxl-turbo or a unet/config.json.`);
  if (info.size > MAX_CONFIG_BYTES)
    throw invalidInput(`--like ${file}: got ${info.size} bytes, expected a unet/config.json.`);
  const source = { where: `--like ${file}`, code: "invalid-input", advice: "Choose another file." } as const;
  const text = await readFile(file, "utf8");
  return readJson(text, source, { most: MAX_CONFIG_BYTES, what: "a unet/config.json" }).object();
}

export interface SyntheticUNet {
  /** Gets `unet/`, which must not be there yet. */
  readonly folder: string;
  /** unet/config.json's content. */
  readonly config: object;
  readonly seed: number;
  /** A tensor that is larger than this gets a file of its own. */
  readonly shardBytes: number;
  readonly onProgress?: (parametersDone: number, parameters: number) => void;
}

/**
 * Writes the folder whole or not at all, holding a few megabytes at a time. Throws `invalid-model` for a config that
 * does not describe a UNet of this family, `invalid-input` where the folder is taken or the disk too small.
 */
export async function writeSyntheticUNet({
  folder,
  config,
  seed,
  shardBytes,
  onProgress = () => {},
}: SyntheticUNet): Promise<{ parameters: number; files: number }> {
  const tensors = checkpointTensors(config);
  const parameters = tensors.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const shards = shardsOf(tensors, shardBytes);
  const target = path.join(folder, "unet");
  if (await lstat(target).catch(() => undefined))
    throw invalidInput(
      `${target}: is there already, expected a place for a new one. Choose another --out, or delete it.`,
    );
  await makeRoom(folder, parameters * HALF_BYTES);

  const aside = path.join(folder, `.unet-${process.pid}.partial`);
  let done = 0;
  try {
    await mkdir(aside, { recursive: true });
    const weightMap: Record<string, string> = {};
    for (const [i, shard] of shards.entries()) {
      const file = shardName(i, shards.length);
      await writeShard(path.join(aside, file), shard, seed, (count) => onProgress((done += count), parameters));
      for (const { name } of shard) weightMap[name] = file;
    }
    if (shards.length > 1) {
      const index = { metadata: { total_size: parameters * HALF_BYTES }, weight_map: weightMap };
      // diffusers puts the variant before the last part of a name, whatever it is.
      await writeJson(path.join(aside, "diffusion_pytorch_model.safetensors.index.fp16.json"), index);
    }
    const origin = `random weights of mixdq synthesize, seed ${seed}`;
    await writeJson(path.join(aside, "config.json"), { ...config, _name_or_path: origin });
    await rename(aside, target);
  } catch (error) {
    await rm(aside, { recursive: true, force: true });
    throw invalidInput(`${target} cannot be written: ${(error as Error).message}. Choose another place.`);
  }
  return { parameters, files: shards.length };
}

/** Every tensor of the checkpoint in the graph's order, in the shapes that diffusers saves. */
function checkpointTensors(config: object): TensorShape[] {
  const unet = readUNetConfig(new Config("unet/config.json", config));
  const [height, width] = unet.sampleSize;
  const graph = buildUNet(unet, { batch: 1, height, width, tokens: 77 }, "unet", "f16");
  const isLinear = "use_linear_projection" in config && config.use_linear_projection === true;
  // The graph takes proj_in and proj_out as linear layers, older models save them as 1x1 convolutions.
  return graph.weights.map(({ name, shape }) =>
    !isLinear && /\.proj_(in|out)\.weight$/.test(name) ? { name, shape: [...shape, 1, 1] } : { name, shape },
  );
}

function shardsOf(tensors: readonly TensorShape[], shardBytes: number): TensorShape[][] {
  const shards: TensorShape[][] = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    const size = elementCount(tensor.shape) * HALF_BYTES;
    if (bytes > 0 && bytes + size > shardBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(tensor);
    bytes += size;
  }
  if (shards.length > MAX_SHARDS)
    throw invalidInput(
      `--shard-bytes ${shardBytes}: makes ${shards.length} files, expected at most ${MAX_SHARDS}. Take more.`,
    );
  return shards;
}

/** As diffusers names them: nothing is added where there is only one. */
function shardName(index: number, count: number): string {
  const pad = (n: number): string => String(n).padStart(5, "0");
  const suffix = count === 1 ? "" : `-${pad(index + 1)}-of-${pad(count)}`;
  return `diffusion_pytorch_model.fp16${suffix}.safetensors`;
}

/** Throws before hours of writing, not after. */
async function makeRoom(folder: string, bytes: number): Promise<void> {
  await mkdir(folder, { recursive: true }).catch((error: Error) => {
    throw invalidInput(`--out ${folder}: no folder can be made there: ${error.message}. Choose another place.`);
  });
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (free < bytes + SPARE_BYTES) {
    const megabytes = (count: number): string => `${Math.ceil(count / 1e6).toLocaleString("en")} MB`;
    throw invalidInput(
      `--out ${folder}: got ${megabytes(free)} of free disk space, expected ${megabytes(bytes + SPARE_BYTES)}. ` +
        "Choose another disk, or make room.",
    );
  }
}

/** One safetensors file (https://github.com/huggingface/safetensors#format), its tensors made while they are written. */
async function writeShard(
  file: string,
  tensors: readonly TensorShape[],
  seed: number,
  onWritten: (count: number) => void,
): Promise<void> {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let offset = 0;
  for (const { name, shape } of tensors) {
    const end = offset + elementCount(shape) * HALF_BYTES;
    header[name] = { dtype: "F16", shape, data_offsets: [offset, end] };
    offset = end;
  }
  const json = Buffer.from(JSON.stringify(header));
  const head = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, " ");
  head.writeBigUInt64LE(BigInt(head.length - 8));
  json.copy(head, 8);
  const handle = await open(file, "wx");
  try {
    await writeAll(handle, head);
    for (const tensor of tensors)
      for (const halves of randomTensor(tensor, seed)) {
        await writeAll(handle, new Uint8Array(halves.buffer, halves.byteOffset, halves.byteLength));
        onWritten(halves.length);
      }
    if ((await handle.stat()).size !== head.length + offset) throw new Error(`${file}: a part was not written`);
  } finally {
    await handle.close();
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += (await handle.write(bytes, at)).bytesWritten;
}

async function writeJson(file: string, value: unknown): Promise<void> {
  await writeFile(file, `${JSON.stringify(value, undefined, 2)}\n`);
}
