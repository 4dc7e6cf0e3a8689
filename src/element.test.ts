import { expect, test } from "vitest";

test("a page that is rendered on a server may import the element", async () => {
  expect(typeof HTMLElement).toBe("undefined");
  const { defineMixdqImage } = await import("./element.ts");
  expect(() => defineMixdqImage()).toThrow(ReferenceError);
});
