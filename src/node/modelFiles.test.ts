import { mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { addressOnNode, modelFiles, nodeHubSettings } from "./modelFiles.ts";

test("the variables of huggingface_hub count where the program says nothing", () => {
  const variables = { HF_ENDPOINT: "https://hub.example/", HF_TOKEN: " hf_a\n", HUGGING_FACE_HUB_TOKEN: "hf_b" };
  expect(nodeHubSettings({}, variables)).toEqual({ host: "https://hub.example/", token: "hf_a" });
  expect(nodeHubSettings({ host: "https://huggingface.co", token: undefined }, variables).host).toMatch("hub.example");
  expect(nodeHubSettings({ host: "https://other", token: "mine" }, variables)).toEqual({
    host: "https://other",
    token: "mine",
  });
  expect(nodeHubSettings({}, { HUGGING_FACE_HUB_TOKEN: "hf_b" }).token).toBe("hf_b");
  expect(nodeHubSettings({}, { HF_TOKEN: "" })).toEqual({ host: "https://huggingface.co", token: undefined });
});

test("a folder on disk comes before a hub's model of the same name", async () => {
  const before = process.cwd();
  process.chdir(mkdtempSync(path.join(tmpdir(), "mixdq-")));
  onTestFinished(() => process.chdir(before));
  const settings = { host: "https://hub.example", token: undefined };
  expect(await addressOnNode("a/b", settings)).toMatchObject({ kind: "hub", id: "a/b" });
  mkdirSync("a/b", { recursive: true });
  expect(await addressOnNode("a/b", settings)).toBeUndefined();
  expect((await modelFiles("a/b", settings)).location).toBe("a/b");
  expect(await addressOnNode("https://host/a/b", settings)).toEqual({ kind: "url", url: "https://host/a/b" });
  await expect(modelFiles("./c", settings)).rejects.toThrow("--model ./c: no such folder");
});
