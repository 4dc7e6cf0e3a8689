/** LoRAs at addresses. */
import type { LoraOption } from "../base/types.ts";
import { httpFile, type HttpOptions } from "../weights/http.ts";
import type { LoraSource } from "./read.ts";

/** `loras` with absolute URLs. Throws `invalid-input` for an address that is none. */
export function httpLoras(loras: readonly LoraOption[] | undefined, options: HttpOptions): readonly LoraSource[] {
  return (loras ?? []).map(({ url, scale = 1 }) => ({ ...httpFile(url, options), scale }));
}
