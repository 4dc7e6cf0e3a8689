/**
 * CLIP's text transformer as a graph (Radford et al. 2021, arXiv 2103.00020), as transformers' CLIPTextModel and
 * CLIPTextModelWithProjection compute it.
 */
import type { Config } from "../base/config.ts";
import { GraphBuilder, slice } from "../graph/builder.ts";
import type { Activation, Graph, Tensor } from "../graph/ops.ts";

/** Which of CLIP's states the UNet reads. */
export type TextState = "last" | "penultimate";

/*
 * Limits, far above any model of the family, far below what would stall a page: OpenCLIP bigG, SDXL's second, has 32
 * layers of width 1280 with 20 heads, 5120 within, for 77 tokens.
 */
const MAX_LAYERS = 256;
const MAX_WIDTH = 2 ** 16;
const MAX_HEADS = 1024;
const MAX_TOKENS = 10_000;

/**
 * ids u32 [batch, 1, tokens, 1] -> `hidden` [batch, 1, tokens, hidden_size], the state after the final norm (`last`,
 * as Stable Diffusion 1 and 2 read it) or the input of the last layer without that norm (`penultimate`, as SDXL does);
 * `skip` layers earlier where it is given (diffusers' clip_skip; the last norm stays where it is); and, where the model has a projection, eos u32 [batch, 1, 1, 1] -> `pooled` [batch, 1, 1, projection_dim]: the
 * projected state of each prompt's end token.
 */
export function buildTextEncoder(
  config: Config,
  { batch, state, projects, skip = 0 }: { batch: number; state: TextState; projects: boolean; skip?: number },
  dtype: "f32" | "f16",
): Graph {
  const channels = config.integer("hidden_size", undefined, MAX_WIDTH);
  const inner = config.integer("intermediate_size", undefined, MAX_WIDTH);
  const heads = config.integer("num_attention_heads", undefined, MAX_HEADS);
  const layers = config.integer("num_hidden_layers", undefined, MAX_LAYERS);
  const tokens = config.integer("max_position_embeddings", 77, MAX_TOKENS);
  // What norms add to a variance: below, rounding loses it; above, it is more than what it is added to.
  const eps = config.number("layer_norm_eps", 1e-5, 1e-12, 0.1);
  const activation = config.oneOf("hidden_act", ["gelu", "quick_gelu"] as const, "quick_gelu");

  const g = new GraphBuilder(config.where, dtype);
  // transformers 4 saved everything under `text_model.`; transformers 5 leaves the prefix out of CLIPTextModel.
  g.aliases((name) => (name.startsWith("text_model.") ? [name.slice("text_model.".length)] : []));
  const ids = g.input("ids", [batch, 1, tokens, 1], "u32");
  let x = g.embedding("text_model.embeddings", ids, {
    table: "text_model.embeddings.token_embedding",
    vocabulary: config.integer("vocab_size"),
    positions: "text_model.embeddings.position_embedding",
    positionCount: tokens,
    channels,
  });
  const states = [x];
  // Layers whose states are not read are left out where some are skipped; without, the graph names the whole checkpoint.
  for (let i = 0; i < (projects ? layers : layers - skip); i++) {
    x = encoderLayer(g, `text_model.encoder.layers.${i}`, x, { inner, heads, eps, activation });
    states.push(x);
  }
  const norm = (of: Tensor): Tensor => g.layerNorm("text_model.final_layer_norm", of, eps);
  const read = states[layers - skip - (state === "last" ? 0 : 1)];
  const last = projects || (state === "last" && skip === 0) ? norm(x) : undefined;
  g.output("hidden", state === "penultimate" ? read : skip === 0 ? last! : norm(read));
  if (projects) {
    const eos = g.input("eos", [batch, 1, 1, 1], "u32");
    const token = g.gather("text_model.pooled", last!, eos);
    g.output(
      "pooled",
      g.linear("text_projection", token, config.integer("projection_dim", undefined, MAX_WIDTH), { bias: false }),
    );
  }
  return g.finish();
}

function encoderLayer(
  g: GraphBuilder,
  path: string,
  x: Tensor,
  { inner, heads, eps, activation }: { inner: number; heads: number; eps: number; activation: Activation },
): Tensor {
  const channels = x.shape[3];
  const attn = `${path}.self_attn`;
  const qkv = g.linears(
    attn,
    g.layerNorm(`${path}.layer_norm1`, x, eps),
    ["q_proj", "k_proj", "v_proj"].map((name) => ({ path: `${attn}.${name}`, n: channels })),
  );
  const seen = g.attention(`${attn}.attention`, {
    q: slice(qkv, 0, 3),
    k: slice(qkv, 1, 3),
    v: slice(qkv, 2, 3),
    heads,
    causal: true,
  });
  const attended = g.linear(`${attn}.out_proj`, seen, channels, { residual: x });
  const hidden = g.linear(`${path}.mlp.fc1`, g.layerNorm(`${path}.layer_norm2`, attended, eps), inner, { activation });
  return g.linear(`${path}.mlp.fc2`, hidden, channels, { residual: attended });
}

/**
 * The token whose state is the pooled output: the first end token, or, for the configs of CLIP's first years, which
 * name 2 as the end token, the largest token id (transformers, CLIPTextTransformer).
 */
export function pooledToken(config: Config, ids: Int32Array): number {
  const eos = config.get("eos_token_id", 49_407).integer(0, 2 ** 31 - 1);
  return eos === 2 ? ids.indexOf(Math.max(...ids)) : Math.max(0, ids.indexOf(eos));
}
