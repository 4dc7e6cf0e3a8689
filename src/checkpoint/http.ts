/** Models by their addresses. */
import type { ModelFiles } from "../weights/files.ts";
import { httpFile, httpFiles, type HttpOptions } from "../weights/http.ts";
import { namesWeights, openPlaces, type ModelParts, type ModelPlace } from "./open.ts";

/** `model` and the parts are absolute URLs, of folders or of files. Throws as `openPlaces`, and `network`. */
export function httpModel(
  model: string,
  parts: ModelParts<string> = {},
  options: HttpOptions = {},
  signal?: AbortSignal,
): Promise<ModelFiles> {
  const { variant, predictionType, configFrom, vae, textEncoder } = parts;
  const place = (address: string | undefined): ModelPlace | undefined =>
    address === undefined ? undefined : httpPlace(address, options);
  return openPlaces(
    httpPlace(model, options),
    {
      variant,
      predictionType,
      configFrom: place(configFrom),
      vae: place(vae),
      textEncoder: place(textEncoder),
    },
    signal,
  );
}

/** Of weights by the name that the address ends with, else of a folder. */
export function httpPlace(address: string, options?: HttpOptions): ModelPlace {
  const isFile = URL.canParse(address) && namesWeights(new URL(address).pathname.replace(/\/$/, ""));
  return isFile ? httpFile(address.replace(/\/(?=$|[?#])/, ""), options) : httpFiles(address, options);
}
