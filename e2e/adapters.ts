/**
 * The software adapters that tests in Node run on. SwiftShader comes with every Chromium, npm's included; lavapipe, the
 * one with shader-f16, may be missing: then its tests are counted as skipped and say why, unless
 * MIXDQ_REQUIRE_LAVAPIPE asks for it (CI does wherever it can be had), which makes them fail.
 */
import { requestNodeGpu } from "../src/node/adapter.ts";

export interface TestAdapter {
  readonly name: "lavapipe" | "swiftshader";
  /** For test titles: the name, and why it is skipped if it is. */
  readonly title: string;
  readonly isMissing: boolean;
}

export async function testAdapters(): Promise<readonly TestAdapter[]> {
  const why = await requestNodeGpu("lavapipe").then(
    () => undefined,
    (error: Error) => error.message,
  );
  if (why !== undefined && process.env["MIXDQ_REQUIRE_LAVAPIPE"]) throw new Error(`lavapipe is required here: ${why}`);
  return [
    {
      name: "lavapipe",
      title: why === undefined ? "lavapipe" : `lavapipe (skipped: ${why})`,
      isMissing: why !== undefined,
    },
    { name: "swiftshader", title: "swiftshader", isMissing: false },
  ];
}
