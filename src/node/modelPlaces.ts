/** Models by what a person types: a folder, a file, an address, and parts of models likewise. */
import { stat } from "node:fs/promises";
import { httpPlace } from "../checkpoint/http.ts";
import { openPlaces, type ModelParts, type ModelPlace } from "../checkpoint/open.ts";
import type { ModelFiles } from "../weights/files.ts";
import type { HttpOptions } from "../weights/http.ts";
import { diskFile, diskFiles } from "./diskFiles.ts";

/** Throws `invalid-input` where there is no such folder or file, and what `openPlaces` throws. */
export async function modelFiles(
  model: string,
  parts: ModelParts<string> = {},
  options: HttpOptions = {},
  signal?: AbortSignal,
): Promise<ModelFiles> {
  const { variant, predictionType } = parts;
  const place = async (address: string | undefined): Promise<ModelPlace | undefined> =>
    address === undefined ? undefined : placeOf(address, options);
  return openPlaces(
    await placeOf(model, options),
    {
      variant,
      predictionType,
      configFrom: await place(parts.configFrom),
      vae: await place(parts.vae),
      textEncoder: await place(parts.textEncoder),
    },
    signal,
  );
}

async function placeOf(address: string, options: HttpOptions): Promise<ModelPlace> {
  if (/^https?:\/\//.test(address)) return httpPlace(address, options);
  const info = await stat(address).catch(() => undefined);
  return info?.isFile() ? diskFile(address) : diskFiles(address);
}
