/** Addresses in options. */
import { invalidInput } from "../base/errors.ts";

/** The absolute URL: a worker would resolve a relative one against its own script. Throws `invalid-input`. */
export function pageUrl(option: string, address: string): string {
  const base = typeof document === "undefined" ? globalThis.location?.href : document.baseURI;
  if (typeof address !== "string" || address.trim() === "" || !URL.canParse(address, base))
    throw invalidInput(`${option} is ${JSON.stringify(address)}, expected a URL, absolute or relative to the page.`);
  return new URL(address, base).href;
}
