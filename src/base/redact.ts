/**
 * Addresses as they may be shown: without the name and password, the query (tokens, signatures) and the fragment. Error
 * messages pass through `redact` in the constructor of MixdqError; whatever else shows an address calls it itself.
 */

/** An address that may not be a valid one, as somebody typed it. */
export function redactAddress(address: string): string {
  const [, scheme = "", rest = ""] = /^([a-z][a-z0-9+.-]*:\/\/|\/\/)?(.*)$/is.exec(address)!;
  if (scheme === "") return rest.replace(/[?#].*$/s, "");
  // A password with "/", "?" or "#" in it makes an address that no parser takes: then all before the last "@" goes.
  const isValid = URL.canParse(address, "https://host");
  const authority = isValid ? /^[^/\\?#]*/.exec(rest)![0] : rest;
  const host = rest.slice(authority.lastIndexOf("@") + 1);
  return scheme + host.replace(/[?#].*$/s, "");
}

/** A text in which addresses may stand. */
export function redact(text: string): string {
  // Punctuation after an address is the sentence's.
  return text.replace(/https?:\/\/[^\s"'`<>]*[^\s"'`<>.,:;!?()]/gi, redactAddress);
}
