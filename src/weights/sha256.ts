import { MixdqError } from "../base/errors.ts";

/** SHA-256 in lower-case hexadecimal. Throws `unsupported` on pages that are not secure, where browsers have none. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const { subtle } = globalThis.crypto as Crypto | { subtle?: undefined };
  if (subtle === undefined)
    throw new MixdqError(
      "unsupported",
      "A pack cannot be checked: this page has no SHA-256 (crypto.subtle). Open it over https:// or on localhost.",
    );
  const digest = new Uint8Array(await subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
