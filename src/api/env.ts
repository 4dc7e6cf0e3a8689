/** Settings for all that this package fetches by a hub's id; an app sets them before it asks for a model. */
import { invalidInput } from "../base/errors.ts";
import { redactAddress } from "../base/redact.ts";
import { DEFAULT_HOST, hubAddress, type HubSettings, type ModelAddress } from "../weights/address.ts";

export interface Env {
  /** Where models named `owner/name` are. Default: https://huggingface.co; in Node the variable HF_ENDPOINT. */
  remoteHost: string;
  /**
   * Sent to remoteHost, and nowhere else, for models that are private or gated. In Node also the variable HF_TOKEN. What a
   * page holds, its visitors can read.
   */
  accessToken: string | undefined;
}

export const env: Env = { remoteHost: DEFAULT_HOST, accessToken: undefined };

export const hubSettings = (): HubSettings => ({ host: env.remoteHost, token: env.accessToken });

/** Which model an option names; relative addresses count from the page. Throws `invalid-input`. */
export function modelAddress(model: string): ModelAddress {
  const text = typeof model === "string" ? model.trim() : "";
  return hubAddress(text, hubSettings()) ?? { kind: "url", url: modelUrl(model) };
}

/** The absolute URL of a model's folder: a worker would resolve a relative one against its own script. */
export function modelUrl(model: string): string {
  const base = typeof document === "undefined" ? globalThis.location?.href : document.baseURI;
  const text = typeof model === "string" ? model.trim() : "";
  if (text === "" || !URL.canParse(text, base))
    throw invalidInput(
      `model is ${JSON.stringify(typeof model === "string" ? redactAddress(model) : model)}, expected the URL of a diffusers folder, for example "models/postcard" or ` +
        `"https://host/name/resolve/main", or a hub's id such as "stabilityai/sdxl-turbo".`,
    );
  return new URL(text, base).href;
}
