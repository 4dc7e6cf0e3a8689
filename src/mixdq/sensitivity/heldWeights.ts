/** The checkpoint's weights of some layers, in memory while those layers are disturbed one after the other. */
import type { Precision } from "../../base/types.ts";
import { nameMap } from "../../graph/names.ts";
import { toFloat32 } from "../../weights/convert.ts";
import type { ModelFiles } from "../../weights/files.ts";
import { findComponent } from "../../weights/folder.ts";
import type { WeightTensor } from "../../weights/safetensors.ts";
import type { Site } from "./sites.ts";

/** Held as the checkpoint has them; what is returned gives one as f32. Throws what reading the UNet's weights throws. */
export async function holdWeights(
  files: ModelFiles,
  sites: readonly Site[],
  precision: Precision,
): Promise<(site: Site) => Float32Array> {
  const names = nameMap(sites.map(({ weight }) => weight));
  const held = new Map<string, WeightTensor>();
  if (names.size > 0)
    for await (const tensor of (await findComponent(files, "unet", { precision })).tensors({
      wanted: (name) => names.has(name),
    }))
      held.set(names.get(tensor.name)!.name, tensor);
  return ({ weight: { name } }) => {
    const { bytes, dtype } = held.get(name)!;
    return toFloat32(bytes, dtype);
  };
}
