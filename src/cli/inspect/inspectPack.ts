/** What `mixdq inspect` says of a pack, after reading all of it. */
import { parseMixdqConfig } from "../../quant/config.ts";
import { elementCount } from "../../graph/ops.ts";
import type { Pack } from "../../weights/pack.ts";
import { PACK_FORMATS, type PackTensor } from "../../weights/packManifest.ts";
import type { Row } from "./inspectQuantization.ts";

/** Throws `integrity` at the first file that is not what the manifest says. */
export async function describePack(pack: Pack): Promise<Row[]> {
  const { manifest, files } = pack;
  const texts = await Promise.all([...manifest.files.keys()].map((path) => files.text(path)));
  const config = parseMixdqConfig((await files.text(manifest.config))!, manifest.config);
  const buffer = new Uint8Array(Math.max(0, ...manifest.shards.map(({ bytes }) => bytes)));
  for (const index of manifest.shards.keys()) await pack.readShard(index, {}, buffer);
  const { symmetric, range, group } = config.weights;
  const shardBytes = manifest.shards.reduce((sum, { bytes }) => sum + bytes, 0);
  return [
    ["pack", `of ${manifest.model}, ${files.location}`],
    ["licence", manifest.licence ?? "came without a file of that name"],
    ["files", `${texts.length}, each with the SHA-256 that the manifest names`],
    ["shards", `${manifest.shards.length}, ${count(shardBytes)} bytes, each with the SHA-256 that the manifest names`],
    ["weights", `${symmetric ? "symmetric" : "asymmetric"}, ${range}, ${group ? `groups of ${group}` : "per channel"}`],
    ["text's first token", config.bos ? "from the cache (bos)" : "quantized as all others (no bos)"],
    ...[...manifest.components].flatMap(([name, tensors]): Row[] => describeComponent(name, tensors)),
  ];
}

/** Bytes by format, and layers and weights by bits. */
function describeComponent(name: string, tensors: readonly PackTensor[]): Row[] {
  const bytes = (of: readonly PackTensor[]): number => of.reduce((sum, tensor) => sum + tensor.bytes, 0);
  const formats = [...new Set(tensors.map(({ format }) => format))];
  return [
    [name, `${tensors.length} tensors`, `${count(bytes(tensors))} bytes`],
    ...formats.map((format): Row => {
      const own = tensors.filter((tensor) => tensor.format === format);
      const described = PACK_FORMATS[format];
      const weights = own.reduce((sum, { shape }) => sum + elementCount(shape), 0);
      const what = "bits" in described ? `${own.length} layers of ${described.bits} bits` : `${own.length} tensors`;
      const note = `${count(bytes(own))} bytes${"bits" in described ? `, ${count(weights)} weights` : ""}`;
      return [`  ${format === "U32" ? "scales and zero points" : format}`, what, note];
    }),
  ];
}

const count = (value: number): string => value.toLocaleString("en");
