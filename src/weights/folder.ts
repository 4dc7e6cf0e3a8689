/**
 * Finding a component's weights in a diffusers folder: one safetensors file or shards with an index, in the plain or the
 * `fp16` variant. A folder without a list of its files is probed file by file, because over HTTP there is no listing.
 */
import { parseConfigText } from "../base/config.ts";
import { MixdqError } from "../base/errors.ts";
import { readJson as readForeignJson } from "../base/json.ts";
import { printable } from "../base/printable.ts";
import type { Precision } from "../base/types.ts";
import { adapterAttached } from "./adapters.ts";
import { noSuchFile, REFUSED, sizeOf, type ModelFiles } from "./files.ts";
import { streamTensors } from "./safetensors.ts";
import type { WeightTensor } from "./safetensors.ts";

export interface FindOptions {
  /** fp16 prefers the fp16 variant, fp32 the plain one; either is taken where it is the only one. */
  readonly precision: Precision;
  readonly signal?: AbortSignal | undefined;
}

export interface TensorOptions {
  readonly signal?: AbortSignal | undefined;
  /** Which tensors to yield; shards that hold none are not opened. Default: all. */
  readonly wanted?: ((name: string) => boolean) | undefined;
  /** Told how many bytes of a file have just arrived, and its size (0 if unknown). */
  readonly onBytes?: ((count: number, file: string, fileBytes: number) => void) | undefined;
}

/** A component's weights, found but not yet read. */
export interface ComponentWeights {
  /** Over all files, from headers and indexes alone; 0 where they do not say. */
  readonly bytes: number;
  /**
   * The tensors over all files, one at a time; each call reads anew. Throws `invalid-model` where index and shards
   * disagree or for damaged files, and what `streamTensors` and the files throw.
   */
  tensors(options?: TensorOptions): AsyncGenerator<WeightTensor, void, undefined>;
}

/** A model of this family has at most a dozen shards. */
const MAX_SHARDS = 1000;
/** As of a header (header.ts); SDXL's UNet has 1680 in an index of 0.2 MB. */
const MAX_TENSORS = 100_000;
const MAX_INDEX_CHARACTERS = 2 ** 25;
const SHARD_FILE = /^[\w-][\w.-]{0,200}\.safetensors$/;

/** The folder of a component: its own name, but for the VAE's encoder, which is loaded only for pictures from pictures. */
export const folderOf = (component: string): string => (component === "vae_encoder" ? "vae" : component);

/**
 * Looks where the weights of `component` (a folder such as `unet` or `text_encoder_2`, or `vae_encoder`) are. Throws `invalid-model` where
 * there are none.
 */
export async function findComponent(
  files: ModelFiles,
  component: string,
  { precision, signal }: FindOptions,
): Promise<ComponentWeights> {
  const folder = folderOf(component);
  const found = await findWeights(files, folder, precision, signal);
  return found.kind === "single"
    ? { bytes: found.bytes, tensors: (options) => tensorsOfFile(files, found.path, options) }
    : { bytes: found.totalBytes, tensors: (options) => tensorsOfShards(files, folder, found, options) };
}

async function* tensorsOfFile(
  files: ModelFiles,
  path: string,
  { signal, wanted, onBytes }: TensorOptions = {},
): AsyncGenerator<WeightTensor, void, undefined> {
  const where = `${files.location}/${path}`;
  const stream = await files.open(path, signal);
  if (stream === undefined)
    throw noSuchFile(files, path, "the weights that were there before", "Load the model again.");
  const report = onBytes && ((count: number) => onBytes(count, path, stream.bytes));
  yield* streamTensors(stream, where, { signal, wanted, onBytes: report });
}

async function* tensorsOfShards(
  files: ModelFiles,
  component: string,
  found: Extract<FoundWeights, { kind: "sharded" }>,
  { signal, wanted = () => true, onBytes }: TensorOptions = {},
): AsyncGenerator<WeightTensor, void, undefined> {
  for (const [shard, names] of groupByShard(found.owners)) {
    if (![...names].some(wanted)) continue;
    const path = `${component}/${shard}`;
    const where = `${files.location}/${path}`;
    const stream = await files.open(path, signal);
    if (stream === undefined) {
      const advice = "Copy the missing file, or save the model again.";
      throw noSuchFile(files, path, `a shard that ${found.path} names`, advice);
    }
    const missing = new Set(names);
    const wantedHere = (name: string) => {
      if (!missing.delete(name))
        throw disagree(where, `the shard holds ${printable(name)}`, found.path, "does not place it there");
      return wanted(name);
    };
    const report = onBytes && ((count: number) => onBytes(count, path, stream.bytes));
    yield* streamTensors(stream, where, { signal, wanted: wantedHere, onBytes: report });
    for (const name of missing)
      throw disagree(where, `the shard lacks ${printable(name)}`, found.path, "places it there");
  }
}

/**
 * A JSON file of the model, parsed; the caller checks what is in it. Throws `invalid-model` where it is missing or
 * malformed, `network` where it is refused, and what `files.text` throws.
 */
export async function readJson(files: ModelFiles, path: string, signal?: AbortSignal): Promise<unknown> {
  const where = `${files.location}/${path}`;
  const text = await files.text(path, signal);
  if (text === undefined) {
    const advice = "Check the model's address, and that it was saved by diffusers.";
    throw noSuchFile(files, path, "a JSON file", advice);
  }
  return parseConfigText(text, where);
}

type FoundWeights =
  | { readonly kind: "single"; readonly path: string; readonly bytes: number }
  | {
      readonly kind: "sharded";
      readonly path: string;
      readonly owners: ReadonlyMap<string, string>;
      /** Over all shards; 0 where the index does not say. */
      readonly totalBytes: number;
    };

async function findWeights(
  files: ModelFiles,
  component: string,
  precision: Precision,
  signal: AbortSignal | undefined,
): Promise<FoundWeights> {
  const stem = component.startsWith("text_encoder") ? "model" : "diffusion_pytorch_model";
  const looked = candidates(stem, precision);
  for (const name of looked) {
    const path = `${component}/${name}`;
    if (name.endsWith(".safetensors")) {
      const bytes = await sizeOf(files, path, signal);
      if (bytes !== undefined) return { kind: "single", path, bytes };
    } else {
      const text = await files.text(path, signal);
      if (text !== undefined) return { kind: "sharded", path, ...parseIndex(text, `${files.location}/${path}`) };
    }
  }

  const where = `${files.location}/${component}`;
  for (const pickled of [stem === "model" ? "pytorch_model.bin" : `${stem}.bin`, `${stem}.fp16.bin`]) {
    if ((await sizeOf(files, `${component}/${pickled}`, signal)) === undefined) continue;
    throw new MixdqError(
      "invalid-model",
      `${where}: got ${pickled}, expected safetensors (a .bin file can run code when it is read). ` +
        `Save the model with save_pretrained(..., safe_serialization=True).`,
    );
  }
  if ((await files.text(`${component}/adapter_config.json`, signal))?.includes('"peft_type"'))
    throw adapterAttached(where, "adapter_config.json and no weights");
  const lookedFor = `no weights; looked for ${looked.join(", ")}`;
  const refused = looked.find((name) => files.refusalOf?.(`${component}/${name}`));
  if (refused !== undefined) {
    const got = `got ${files.refusalOf?.(`${component}/${refused}`)} for ${refused}`;
    throw new MixdqError("network", `${where}: ${got}, and ${lookedFor}. ${REFUSED}`);
  }
  const advice = "Check the model's address, and that the files are there.";
  throw new MixdqError("invalid-model", `${where}: ${lookedFor}. ${advice}`);
}

/**
 * Where weights may be, likeliest first, because over HTTP every miss is a request. For fp16 a plain single file comes
 * before shards of halves, which only exist of models whose plain weights are in shards too; for fp32 everything plain
 * comes before the halves, which have lost bits.
 */
function candidates(stem: string, precision: Precision): string[] {
  const single = `${stem}.safetensors`;
  const index = `${single}.index.json`;
  const halfSingle = `${stem}.fp16.safetensors`;
  // diffusers has spelled it both ways.
  const halfIndexes = [`${single}.index.fp16.json`, `${halfSingle}.index.json`];
  return precision !== "fp32"
    ? [halfSingle, single, ...halfIndexes, index]
    : [single, index, halfSingle, ...halfIndexes];
}

/** Tensor name to shard file, in the index's order, and what all shards weigh. Throws `invalid-model`. */
export function parseIndex(text: string, where: string): { owners: Map<string, string>; totalBytes: number } {
  const source = { where, code: "invalid-model", advice: "Save the model again." } as const;
  const index = readForeignJson(text, source, { most: MAX_INDEX_CHARACTERS, what: "an index of shards" });
  const owners = new Map<string, string>();
  // Only files beside the index: a name with a path could lead anywhere.
  for (const [name, shard] of index.get("weight_map").entries("tensors", 0, MAX_TENSORS))
    owners.set(name, shard.matching(SHARD_FILE, "a .safetensors file name"));
  const { value } = index.get("metadata").or({}).get("total_size");
  const isSize = typeof value === "number" && Number.isSafeInteger(value) && value > 0;
  return { owners, totalBytes: isSize ? value : 0 };
}

function groupByShard(owners: ReadonlyMap<string, string>): Map<string, Set<string>> {
  const shards = new Map<string, Set<string>>();
  for (const [name, shard] of owners) {
    const names = shards.get(shard);
    if (names === undefined) shards.set(shard, new Set([name]));
    else names.add(name);
  }
  if (shards.size > MAX_SHARDS) {
    throw new MixdqError("invalid-model", `The index names ${shards.size} shards, expected at most ${MAX_SHARDS}.`);
  }
  return shards;
}

function disagree(where: string, what: string, index: string, but: string): MixdqError {
  return new MixdqError("invalid-model", `${where}: ${what}, but ${index} ${but}. Save the model again.`);
}
