import { describe, it } from "vitest";
import { GraphBuilder, slice, whole } from "../graph/builder.ts";
import { expectAgreement, random } from "./agreement.testing.ts";

const builder = () => new GraphBuilder("test", "f32");

describe("each op, on onnxruntime-web's WebAssembly provider", () => {
  it.each(["none", "silu", "relu", "gelu", "quick_gelu"] as const)(
    "linear layer with residual and %s",
    async (activation) => {
      const g = builder();
      const x = g.input("x", [2, 1, 7, 12]);
      g.output("y", g.linear("fc", x, 20, { activation, residual: g.input("r", [2, 1, 7, 20]) }));
      await expectAgreement(g.finish());
    },
  );

  it("linear layer without bias over an image's pixels", async () => {
    const g = builder();
    g.output("y", g.linear("fc", g.input("x", [2, 3, 5, 12]), 8, { bias: false }));
    await expectAgreement(g.finish());
  });

  it("several linear layers side by side, read whole and in slices", async () => {
    const g = builder();
    const x = g.input("x", [2, 1, 5, 12]);
    const layers = [8, 16, 8].map((n, i) => ({ path: `part${i}`, n }));
    const y = g.linears("fused", x, layers);
    g.output("y", y);
    g.output("activated", g.linears("activated", x, layers, { activation: "silu" }));
    // Not a part's border: a real slice.
    g.output(
      "a",
      g.attention("attn", { q: whole(x), k: { tensor: y, offset: 4, channels: 12 }, v: whole(x), heads: 3 }),
    );
    await expectAgreement(g.finish());
  });

  it("gated linear layers, in one part and in two", async () => {
    const g = builder();
    const x = g.input("x", [2, 1, 9, 12]);
    g.output("y", g.linear("ff", x, 32, { activation: "geglu" }));
    g.output(
      "z",
      g.linears(
        "two",
        x,
        [
          { path: "value", n: 8 },
          { path: "gate", n: 8 },
        ],
        { activation: "geglu" },
      ),
    );
    await expectAgreement(g.finish());
  });

  it.each([
    [1, 1],
    [3, 1],
    [3, 2],
  ] as const)(
    "convolution with a kernel of %i and stride %i, odd sizes, concatenated inputs, all epilogues",
    async (kernel, stride) => {
      const g = builder();
      const x = g.input("x", [2, 7, 5, 8]);
      const size = stride === 1 ? [7, 5] : [4, 3];
      const options = {
        kernel,
        stride,
        skip: g.input("skip", [2, 7, 5, 4]),
        rowBias: g.input("temb", [2, 1, 1, 12]),
        residual: g.input("r", [2, size[0], size[1], 12]),
        activation: "silu",
      } as const;
      g.output("y", g.conv2d("conv", x, 12, options));
      await expectAgreement(g.finish());
    },
  );

  it.each([
    [6, 10],
    [5, 9],
    [6, 9],
  ] as const)("convolution after enlarging 3x5 to %ix%i", async (height, width) => {
    const g = builder();
    g.output("y", g.conv2d("conv", g.input("x", [2, 3, 5, 4]), 4, { upsampleTo: [height, width], bias: false }));
    await expectAgreement(g.finish());
  });

  it("enlarging to odd sizes repeats exactly pixel i >> 1, at every size the UNet may have", async () => {
    for (const size of [1, 2, 3, 8, 33, 47, 64, 127]) {
      const g = builder();
      g.output("y", g.conv2d("conv", g.input("x", [1, 1, size, 4]), 4, { kernel: 1, upsampleTo: [1, 2 * size - 1] }));
      await expectAgreement(g.finish());
    }
  });

  it("group norm over concatenated inputs, with SiLU, far from zero mean", async () => {
    const g = builder();
    const x = g.input("x", [2, 5, 3, 8]);
    const skip = g.input("skip", [2, 5, 3, 4]);
    g.output("y", g.groupNorm("norm", x, { groups: 3, eps: 1e-5, skip, activation: "silu" }));
    g.output("z", g.groupNorm("plain", x, { groups: 4, eps: 1e-6 }));
    await expectAgreement(g.finish(), { x: random(240, 5).map((v) => v + 10) });
  });

  it("layer norm", async () => {
    const g = builder();
    g.output("y", g.layerNorm("norm", g.input("x", [2, 1, 7, 20]), 1e-5));
    await expectAgreement(g.finish());
  });

  it.each([
    [4, true],
    [64, true],
    [64, false],
  ])(
    "self-attention over slices of one projection, heads of %i, causal or not, as one operator: %s",
    async (d, fusedAttention) => {
      const g = builder();
      const x = g.input("x", [2, 1, 11, 12]);
      const qkv = g.linears(
        "qkv",
        x,
        ["q", "k", "v"].map((path) => ({ path, n: 3 * d })),
      );
      const [q, k, v] = [0, 1, 2].map((i) => slice(qkv, i, 3));
      g.output("y", g.attention("attn", { q, k, v, heads: 3 }));
      g.output("causal", g.attention("causal", { q, k, v, heads: 3, causal: true }));
      await expectAgreement(g.finish(), {}, { fusedAttention });
    },
  );

  it.each([true, false])("cross-attention from an image to tokens, as one operator: %s", async (fusedAttention) => {
    const g = builder();
    const q = g.input("q", [2, 3, 5, 16]);
    const kv = g.input("kv", [2, 1, 7, 32]);
    g.output("y", g.attention("attn", { q: whole(q), k: slice(kv, 0, 2), v: slice(kv, 1, 2), heads: 2 }));
    await expectAgreement(g.finish(), {}, { fusedAttention });
  });

  it("embedding with positions, and one token of each sequence", async () => {
    const g = builder();
    const ids = g.input("ids", [2, 1, 5, 1], "u32");
    const index = g.input("index", [2, 1, 1, 1], "u32");
    const table = { table: "token", vocabulary: 11, positions: "position", positionCount: 9, channels: 8 };
    const x = g.embedding("embed", ids, table);
    g.output("x", x);
    g.output("picked", g.gather("pick", x, index));
    await expectAgreement(g.finish(), {
      ids: Uint32Array.of(0, 10, 3, 3, 1, 9, 8, 7, 2, 0),
      index: Uint32Array.of(4, 1),
    });
  });

  it("elementwise functions, on a token sequence and on a convolution's result", async () => {
    const g = builder();
    const x = g.input("x", [2, 3, 5, 4]);
    for (const [name, source] of [
      ["direct", x],
      ["after", g.conv2d("conv", x, 4)],
    ] as const) {
      g.output(`${name} silu`, g.unary("silu", source, { name: "silu" }));
      g.output(`${name} clamp`, g.unary("clamp", source, { name: "soft_clamp" }));
      g.output(`${name} affine`, g.unary("affine", source, { name: "affine", scale: 2.5, shift: -0.75 }));
    }
    await expectAgreement(g.finish());
  });

  it("an input that is also an output", async () => {
    const g = builder();
    g.output("x", g.input("x", [1, 2, 3, 4]));
    await expectAgreement(g.finish());
  });
});
