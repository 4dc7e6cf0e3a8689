/** The model that somebody names on this machine: a folder on disk, the id of a model on the hub, or an address. */
import { stat } from "node:fs/promises";
import { hubAddress, DEFAULT_HOST, remoteFiles, type HubSettings, type ModelAddress } from "../weights/address.ts";
import type { ModelFiles } from "../weights/files.ts";
import type { HttpOptions } from "../weights/http.ts";
import { diskFiles } from "./diskFiles.ts";

/** Variables that huggingface_hub reads, too; what was `set` in the program comes first. */
export function nodeHubSettings(set: Partial<HubSettings> = {}, variables = process.env): HubSettings {
  const host =
    set.host === undefined || set.host === DEFAULT_HOST ? variables["HF_ENDPOINT"] || DEFAULT_HOST : set.host;
  // A file that holds a token often ends in a new line.
  const token = (set.token ?? variables["HF_TOKEN"] ?? variables["HUGGING_FACE_HUB_TOKEN"])?.trim();
  return { host, token: token || undefined };
}

/** undefined for a folder on disk, which comes before a hub's model of the same name. */
export async function addressOnNode(model: string, settings = nodeHubSettings()): Promise<ModelAddress | undefined> {
  const isHttp = /^https?:\/\//.test(model);
  const isFolder = !isHttp && (await stat(model).catch(() => undefined))?.isDirectory();
  if (isFolder) return undefined;
  return hubAddress(model, settings) ?? (isHttp ? { kind: "url", url: model } : undefined);
}

/** Throws `invalid-input` for what is neither a folder nor an id nor an address. */
export async function modelFiles(model: string, settings?: HubSettings, options?: HttpOptions): Promise<ModelFiles> {
  const address = await addressOnNode(model, settings);
  return address ? remoteFiles(address, options) : diskFiles(model);
}
