import { expect, test } from "vitest";
import { importOptional } from "./optional.ts";

test("what is installed is passed on", async () => {
  expect(await importOptional(async () => 7, "seven", "counting")).toBe(7);
});

test("what is missing is an error of one line with the command that installs it", async () => {
  const load = async () => {
    throw new Error("Cannot find package 'highs'.\nRequire stack: …");
  };
  await expect(importOptional(load, "highs", "mixdq allocate", "use --solver none")).rejects.toMatchObject({
    code: "unsupported",
    message:
      "mixdq allocate: the package highs cannot be loaded (Cannot find package 'highs'). " +
      "Run npm install highs, or use --solver none.",
  });
});
