import { expect, test } from "vitest";
import { MixdqError } from "./errors.ts";
import { redact, redactAddress } from "./redact.ts";

test.each([
  ["https://host/a/b.json", "https://host/a/b.json"],
  ["https://host/a?token=secret", "https://host/a"],
  ["https://host/a?X-Amz-Signature=secret&b=secret#secret", "https://host/a"],
  ["https://host/a#access_token=secret", "https://host/a"],
  ["https://user:secret@host:8080/a", "https://host:8080/a"],
  ["https://secret@host/a", "https://host/a"],
  ["https://user:se/cret@host/a", "https://host/a"],
  ["https://user:se?cret@host/a", "https://host/a"],
  ["HTTPS://user:secret@host/a?secret", "HTTPS://host/a"],
  ["//user:secret@host/a", "//host/a"],
  ["models/m?token=secret", "models/m"],
  ["https://cdn/npm/model@1.0/unet", "https://cdn/npm/model@1.0/unet"],
])("%s is shown as %s", (address, shown) => expect(redactAddress(address)).toBe(shown));

test("addresses in a text lose what is secret, the text nothing else", () => {
  const text = `"https://u:secret@h/a?b=secret": got 3? See (https://h/c?secret), https://h/d?e=secret. A user@host: x?`;
  expect(redact(text)).toBe(`"https://h/a": got 3? See (https://h/c), https://h/d. A user@host: x?`);
});

test("every error does so", () => {
  const error = new MixdqError("network", "https://u:secret@h/a?b=secret: got status 500, expected 200. Try again.");
  expect(error.message).toBe("https://h/a: got status 500, expected 200. Try again.");
  expect(error.stack).not.toContain("secret");
});
