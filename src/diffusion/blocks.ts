/** ResnetBlock2D, Transformer2DModel and their parts: what the UNet and the VAE are made of. */
import { slice, whole, type GraphBuilder } from "../graph/builder.ts";
import type { Activation, Tensor } from "../graph/ops.ts";

export interface ResnetOptions {
  channels: number;
  groups: number;
  eps: number;
  /** The skip connection, concatenated behind x. */
  skip?: Tensor;
  /** SiLU of the time embedding, [batch, 1, 1, C]. */
  timeEmbedding?: Tensor;
}

/** x + conv2(silu(norm2(conv1(silu(norm1(x))) + time))), with a 1x1 shortcut where the width changes. */
export function resnet(
  g: GraphBuilder,
  path: string,
  x: Tensor,
  { channels, groups, eps, skip, timeEmbedding }: ResnetOptions,
): Tensor {
  const width = x.shape[3] + (skip ? skip.shape[3] : 0);
  const norm = { groups, eps, activation: "silu" as const };
  const rowBias = timeEmbedding && g.linear(`${path}.time_emb_proj`, timeEmbedding, channels);
  const first = g.conv2d(
    `${path}.conv1`,
    g.groupNorm(`${path}.norm1`, x, { ...norm, ...(skip && { skip }) }),
    channels,
    {
      ...(rowBias && { rowBias }),
    },
  );
  const second = g.groupNorm(`${path}.norm2`, first, norm);
  const residual =
    width === channels && !skip
      ? x
      : g.conv2d(`${path}.conv_shortcut`, x, channels, { kernel: 1, stream: true, ...(skip && { skip }) });
  return g.conv2d(`${path}.conv2`, second, channels, { residual });
}

export interface TransformerOptions {
  depth: number;
  heads: number;
  groups: number;
  /** [batch, 1, tokens, cross_attention_dim]. */
  encoderHiddenStates: Tensor;
  /** attn1 reads the text too. */
  onlyCrossAttention: boolean;
}

/** Fixed in diffusers' Transformer2DModel and BasicTransformerBlock, whatever the config says. */
const TRANSFORMER_NORM_EPS = 1e-6;
const BLOCK_NORM_EPS = 1e-5;

/** x + proj_out(blocks(proj_in(norm(x)))). With depth 0, norm and projections remain, as in diffusers. */
export function transformer(g: GraphBuilder, path: string, x: Tensor, options: TransformerOptions): Tensor {
  const channels = x.shape[3];
  // proj_in and proj_out are linear or 1x1 convolutions, the same arithmetic; only their checkpoint shapes differ.
  let h = g.linear(
    `${path}.proj_in`,
    g.groupNorm(`${path}.norm`, x, { groups: options.groups, eps: TRANSFORMER_NORM_EPS }),
    channels,
    { stream: true },
  );
  for (let i = 0; i < options.depth; i++) h = transformerBlock(g, `${path}.transformer_blocks.${i}`, h, options);
  return g.linear(`${path}.proj_out`, h, channels, { residual: x });
}

function transformerBlock(
  g: GraphBuilder,
  path: string,
  x: Tensor,
  { heads, encoderHiddenStates, onlyCrossAttention }: TransformerOptions,
): Tensor {
  // What leads to cross-attention's scores is stored as exactly as the residual stream: the first token's keys are far
  // larger than all others (CLIP's BOS outlier), which makes the softmax sharp and rounding errors before it count most.
  const norm = (i: 1 | 2 | 3, of: Tensor): Tensor =>
    g.layerNorm(`${path}.norm${i}`, of, BLOCK_NORM_EPS, { stream: i === 2 });
  const afterSelf = onlyCrossAttention
    ? crossAttention(g, `${path}.attn1`, x, norm(1, x), encoderHiddenStates, heads)
    : selfAttention(g, `${path}.attn1`, x, norm(1, x), heads, false);
  const afterCross = crossAttention(g, `${path}.attn2`, afterSelf, norm(2, afterSelf), encoderHiddenStates, heads);
  const channels = x.shape[3];
  const hidden = g.linear(`${path}.ff.net.0.proj`, norm(3, afterCross), 8 * channels, { activation: "geglu" });
  return g.linear(`${path}.ff.net.2`, hidden, channels, { residual: afterCross });
}

/** residual + to_out(attention(x, x, x)). */
export function selfAttention(
  g: GraphBuilder,
  path: string,
  residual: Tensor,
  x: Tensor,
  heads: number,
  bias: boolean,
): Tensor {
  const channels = x.shape[3];
  const qkv = g.linears(
    path,
    x,
    ["to_q", "to_k", "to_v"].map((name) => ({ path: `${path}.${name}`, n: channels })),
    { bias },
  );
  const seen = g.attention(`${path}.attention`, {
    q: slice(qkv, 0, 3),
    k: slice(qkv, 1, 3),
    v: slice(qkv, 2, 3),
    heads,
  });
  return g.linear(`${path}.to_out.0`, seen, channels, { residual });
}

/** residual + to_out(attention(x, text, text)). */
function crossAttention(
  g: GraphBuilder,
  path: string,
  residual: Tensor,
  x: Tensor,
  text: Tensor,
  heads: number,
): Tensor {
  const channels = x.shape[3];
  const q = g.linear(`${path}.to_q`, x, channels, { bias: false, stream: true });
  const kv = g.linears(
    `${path}.to_kv`,
    text,
    ["to_k", "to_v"].map((name) => ({ path: `${path}.${name}`, n: channels })),
    { bias: false, stream: true },
  );
  const seen = g.attention(`${path}.attention`, { q: whole(q), k: slice(kv, 0, 2), v: slice(kv, 1, 2), heads });
  return g.linear(`${path}.to_out.0`, seen, channels, { residual });
}

/** The names config.json gives activation functions. */
export const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: "silu",
  swish: "silu",
  relu: "relu",
  gelu: "gelu",
};
