/**
 * manifest.json of a pack: a model whose UNet has been quantized, ready to be copied to a GPU. It says of every tensor
 * where it lies in the shards; an untrusted file.
 *
 * Components follow one another in the order in which they are loaded, each from the beginning of a shard of its own, its
 * tensors one after the other, each at the next multiple of 16 bytes. One that does not fit into what is left of a shard
 * begins the next; one that is larger than a shard fills as many as it needs, cut between rows.
 *
 * A layer with integer weights has two tensors: `<module path>.weight`, its codes as quant/codes.ts packs them (shape: the
 * checkpoint's), and right after it `<module path>.parameters`, U32 [segments, rows, words] as quant/parameters.ts has them.
 * `<module path>.bos` holds a layer's product with the BOS token, F32 [1, N].
 */
import { readJson, type Json } from "../base/json.ts";
import { show } from "../base/printable.ts";
import { isInsteadOf } from "./sniff.ts";

export const MANIFEST = "manifest.json";
const FORMAT = "mixdq-pack";
const VERSION = 1;

/** Of a shard: what a loader holds at a time. */
export const MAX_SHARD_BYTES = 32 * 2 ** 20;
export const PACK_ALIGNMENT = 16;
/** Beside shards: SDXL's tokenizer.json has 2.3 MB. */
export const MAX_FILE_BYTES = 64 * 2 ** 20;
/** SDXL at 8 bits has about 150 shards and 5,000 tensors in 0.9 MB. */
const MAX_SHARDS = 4096;
const MAX_TENSORS = 100_000;
const MAX_FILES = 1000;
const MAX_NAME_LENGTH = 1024;
const MAX_RANK = 8;
const MAX_CHARACTERS = 64 * 2 ** 20;

/** How a tensor's bytes are to be read: floats, the codes of integer weights (bits), or words of parameters. */
export const PACK_FORMATS = {
  F32: { bytes: 4 },
  F16: { bytes: 2 },
  U32: { bytes: 4 },
  I8: { bits: 8 },
  U4: { bits: 4 },
  U3: { bits: 3 },
  U2: { bits: 2 },
} as const;

export type PackFormat = keyof typeof PACK_FORMATS;

export interface PackTensor {
  readonly name: string;
  readonly format: PackFormat;
  readonly shape: readonly number[];
  /** The shard that it begins in, and where. */
  readonly shard: number;
  readonly offset: number;
  /** Of the whole tensor. */
  readonly bytes: number;
}

export interface PackShard {
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
}

export interface PackManifest {
  /** The model's name, for people. */
  readonly model: string;
  /** The bit-width configuration, one of `files`. */
  readonly config: string;
  /** The model's licence, one of `files`; null where it came without. */
  readonly licence: string | null;
  /** The text state of the BOS token that `.bos` tensors were computed from; none where the configuration wants none. */
  readonly bos: readonly Float32Array[];
  /** Everything that is read as text, by path. */
  readonly files: ReadonlyMap<string, { readonly bytes: number; readonly sha256: string }>;
  readonly shards: readonly PackShard[];
  readonly components: ReadonlyMap<string, readonly PackTensor[]>;
}

/** A run of a tensor's bytes within one shard, `from` its own beginning. */
export interface Piece {
  readonly shard: number;
  readonly offset: number;
  readonly from: number;
  readonly bytes: number;
}

/** `sizes` are the shards'. */
export function piecesOf({ shard, offset, bytes }: PackTensor, sizes: readonly number[]): Piece[] {
  const pieces: Piece[] = [];
  for (let [at, from, i] = [offset, 0, shard]; from < bytes && i < sizes.length; i++, at = 0) {
    const count = Math.min(bytes - from, sizes[i] - at);
    pieces.push({ shard: i, offset: at, from, bytes: count });
    from += count;
  }
  return pieces;
}

/** One line a tensor; the same manifest gives the same text. */
export function writeManifest({ components, shards, files, bos, model, config, licence }: PackManifest): string {
  const lines = (items: readonly unknown[], indent: string): string =>
    items.map((item) => `\n${indent}${JSON.stringify(item)}`).join(",");
  const head = { format: FORMAT, version: VERSION, model, config, licence };
  const bosStates = bos.map((state) => Array.from(state));
  const parts = Array.from(
    components,
    ([name, tensors]) => `\n    ${JSON.stringify(name)}: {"tensors": [${lines(tensors, "      ")}]}`,
  );
  const named = Array.from(files, ([path, file]) => `\n    ${JSON.stringify(path)}: ${JSON.stringify(file)}`);
  return [
    `${JSON.stringify(head).slice(0, -1)},`,
    `  "files": {${named.join(",")}},`,
    `  "bos": ${JSON.stringify(bosStates)},`,
    `  "shards": [${lines(shards, "    ")}],`,
    `  "components": {${parts.join(",")}}`,
    "}\n",
  ].join("\n");
}

/**
 * undefined for a page in the file's place and another program's manifest. Throws `invalid-model`; `where` is the file,
 * for messages.
 */
export function readManifest(text: string, where: string): PackManifest | undefined {
  if (isInsteadOf(MANIFEST, text)) return undefined;
  const source = { where, code: "invalid-model", advice: "Write the pack again with mixdq quantize." } as const;
  const file = readJson(text, source, { most: MAX_CHARACTERS, what: "a pack's manifest", uniqueKeys: true });
  // Web apps have one of this name, too.
  if (file.get("format").isMissing && file.get("shards").isMissing) return undefined;
  file.get("format").oneOf([FORMAT]);
  file.get("version").oneOf([VERSION]);
  const files = readFiles(file.get("files"));
  const isFile = (json: Json): boolean => typeof json.value === "string" && files.has(json.value);
  const [model, config, licence] = [file.get("model"), file.get("config"), file.get("licence")];
  if (!isFile(config)) config.fail("one of its files");
  if (licence.value !== null && !isFile(licence)) licence.fail("one of its files, or null");
  const shards = readShards(file.get("shards"));
  const components = new Map<string, PackTensor[]>();
  let end = 0;
  const parts = file.get("components");
  for (const [name, part] of parts.entries("components", 1, 16)) {
    if (!/^[\w-]{1,64}$/.test(name)) throw parts.inside(`a component ${show(name)}`, "a folder's name");
    const component = part.named(name, file);
    const tensors = component
      .get("tensors")
      .items(1, MAX_TENSORS)
      .map((tensor) => readTensor(tensor, component));
    end = checkPlaces(tensors, shards, end, component);
    checkPairs(tensors, component);
    components.set(name, tensors);
  }
  if (end !== shards.length) throw file.inside(`${shards.length} shards`, `${end}, as the tensors fill`);
  return {
    model: model.string("the model's name"),
    config: config.value as string,
    licence: licence.value as string | null,
    bos: readBos(file.get("bos")),
    files,
    shards,
    components,
  };
}

function readFiles(json: Json): PackManifest["files"] {
  return new Map(
    json.entries("files", 0, MAX_FILES).map(([path, entry]) => {
      // A path that leaves the folder, or an address, could lead anywhere.
      const isPath = path.length <= MAX_NAME_LENGTH && /^[\w-][\w.-]*(\/[\w-][\w.-]*)*$/.test(path);
      if (!isPath || path === MANIFEST) throw json.inside(show(path), "the path of a file within the pack");
      return [path, { bytes: entry.get("bytes").integer(0, MAX_FILE_BYTES), sha256: readDigest(entry) }];
    }),
  );
}

function readShards(json: Json): PackShard[] {
  const shards = json.items(0, MAX_SHARDS).map((entry): PackShard => {
    const file = entry.get("file").matching(/^[\w-][\w.-]{0,200}$/, "a file name");
    return { file, bytes: entry.get("bytes").integer(1, MAX_SHARD_BYTES), sha256: readDigest(entry) };
  });
  const names = new Set(shards.map(({ file }) => file));
  if (names.size < shards.length) throw json.inside("two shards of one name", "a file each");
  return shards;
}

const readDigest = (entry: Json): string => entry.get("sha256").matching(/^[0-9a-f]{64}$/, "64 hexadecimal digits");

function readTensor(entry: Json, component: Json): PackTensor {
  const name = entry.get("name").matching(/^[\w.-]{1,1024}$/, "a name as in a checkpoint");
  const json = entry.named(name, component);
  const tensor: PackTensor = {
    name,
    format: json.get("format").oneOf(Object.keys(PACK_FORMATS) as PackFormat[]),
    shape: json
      .get("shape")
      .items(1, MAX_RANK)
      .map((count) => count.integer(1, 2 ** 32)),
    shard: json.get("shard").integer(0, MAX_SHARDS),
    offset: json.get("offset").integer(0, MAX_SHARD_BYTES),
    bytes: json.get("bytes").integer(1, 2 ** 34),
  };
  const elements = tensor.shape.reduce((product, count) => product * count, 1);
  const described = PACK_FORMATS[tensor.format];
  const [least, most] =
    "bytes" in described
      ? [elements * described.bytes, elements * described.bytes]
      : // Input channels are filled up to whole elements of 16 (32 where 3 bits pair their highest bits).
        [(elements * described.bits) / 8, elements * 64];
  if (!(tensor.bytes >= least && tensor.bytes <= most && tensor.bytes % 2 === 0))
    throw json.inside(
      `${tensor.bytes} bytes`,
      `${least}${most > least ? " or more" : ""} for ${show(tensor.shape)} in ${tensor.format}`,
    );
  return tensor;
}

/**
 * Throws unless the tensors lie as the writer puts them from shard `first` on, which leaves no room for gaps, overlaps or
 * ends beyond a shard. Returns the shard after the last.
 */
function checkPlaces(
  tensors: readonly PackTensor[],
  shards: readonly PackShard[],
  first: number,
  component: Json,
): number {
  const sizes = shards.map(({ bytes }) => bytes);
  let [shard, offset] = [first, 0];
  const names = new Set<string>();
  for (const tensor of tensors) {
    const expectThat = (condition: boolean, got: string, expected: string): void => {
      if (!condition) throw component.at(tensor.name).inside(got, expected);
    };
    expectThat(!names.has(tensor.name), "two tensors of this name", "one");
    names.add(tensor.name);
    // Where the one before ends its shard, or where there is no room behind it.
    if (offset > 0 && tensor.shard === shard + 1 && tensor.offset === 0) {
      expectThat(offset - sizes[shard] < PACK_ALIGNMENT && offset >= sizes[shard], "a gap before it", "none");
      [shard, offset] = [shard + 1, 0];
    }
    const place = `shard ${tensor.shard}, offset ${tensor.offset}`;
    expectThat(tensor.shard === shard && tensor.offset === offset, place, `shard ${shard}, offset ${offset}`);
    const pieces = piecesOf(tensor, sizes);
    const last = pieces.at(-1);
    const isWhole =
      last !== undefined && last.from + last.bytes === tensor.bytes && pieces.every(({ bytes }) => bytes > 0);
    expectThat(isWhole, `${tensor.bytes} bytes at ${place}`, "an end within the shards");
    shard = last!.shard;
    offset = Math.ceil((last!.offset + last!.bytes) / PACK_ALIGNMENT) * PACK_ALIGNMENT;
  }
  const used = offset - sizes[shard];
  if (!(used >= 0 && used < PACK_ALIGNMENT))
    throw component.inside(`${sizes[shard]} bytes in shard ${shard}`, "tensors up to its end");
  return shard + 1;
}

/** Codes and their parameters come together. */
function checkPairs(tensors: readonly PackTensor[], component: Json): void {
  const pathOf = ({ name }: PackTensor): string => name.replace(/\.\w+$/, "");
  tensors.forEach((tensor, i) => {
    const refuse = (got: string, expected: string): never => {
      throw component.at(tensor.name).inside(got, expected);
    };
    const [before, after] = [tensors[i - 1], tensors[i + 1]];
    if ("bits" in PACK_FORMATS[tensor.format]) {
      const isPair =
        tensor.name.endsWith(".weight") && after?.format === "U32" && after.name === `${pathOf(tensor)}.parameters`;
      if (!isPair) refuse(`${after ? after.name : "nothing"} after it`, `${pathOf(tensor)}.parameters`);
    } else if (tensor.format === "U32") {
      const isPair = before !== undefined && "bits" in PACK_FORMATS[before.format] && tensor.shape.length === 3;
      if (!isPair) refuse("parameters without codes", "the layer's codes before them");
    }
  });
}

function readBos(json: Json): Float32Array[] {
  return json.items(0, 1).map((state) => Float32Array.from(state.items(1, 2 ** 16), (value) => value.float32()));
}
