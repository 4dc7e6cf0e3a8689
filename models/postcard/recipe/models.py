"""The four networks, as plain modules whose parameters carry the names that diffusers and transformers give them:
exporting is saving. Only what this model uses is here; `export.py` checks that the real libraries agree."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

GROUPS = 8


def attend(q, k, v, heads, causal=False):
    """Plain matmul and softmax: at these sizes quicker on a CPU, forwards and backwards, than the fused kernel."""
    b, n, d = q.shape
    split = lambda x: x.view(b, -1, heads, d // heads).transpose(1, 2)
    if q.device.type != "cpu":
        out = F.scaled_dot_product_attention(split(q), split(k), split(v), is_causal=causal)
        return out.transpose(1, 2).reshape(b, n, d)
    scores = (split(q) * (d // heads) ** -.5) @ split(k).transpose(-1, -2)
    if causal:
        scores = scores + torch.full((n, n), -1e4, dtype=scores.dtype).triu(1)
    out = torch.softmax(scores, -1).to(v.dtype) @ split(v)
    return out.transpose(1, 2).reshape(b, n, d)


def sinusoid(t, width):
    """diffusers' Timesteps with flip_sin_to_cos and freq_shift 0."""
    half = width // 2
    f = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * f
    return torch.cat([angles.cos(), angles.sin()], -1)


# --- UNet2DConditionModel, as SDXL uses it ---


class Resnet(nn.Module):
    def __init__(self, c_in, c_out, c_time):
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, c_in, 1e-5)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(c_time, c_out)
        self.norm2 = nn.GroupNorm(GROUPS, c_out, 1e-5)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        if c_in != c_out:
            self.conv_shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x, time):
        h = self.conv1(F.silu(self.norm1(x))) + self.time_emb_proj(time)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x) + h


class Attention(nn.Module):
    def __init__(self, width, heads, context=None):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context or width, width, bias=False)
        self.to_v = nn.Linear(context or width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x, context=None):
        context = x if context is None else context
        return self.to_out[0](attend(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))


class GEGLU(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.ModuleList([GEGLU(width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x):
        return self.net[2](self.net[0](x))


class TransformerBlock(nn.Module):
    def __init__(self, width, heads, context):
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.attn2 = nn.LayerNorm(width), Attention(width, heads, context)
        self.norm3, self.ff = nn.LayerNorm(width), FeedForward(width)

    def forward(self, x, context):
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    def __init__(self, width, heads, context, layers):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, 1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, heads, context) for _ in range(layers)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, x, context):
        b, c, h, w = x.shape
        y = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            y = block(y, context)
        return x + self.proj_out(y).transpose(1, 2).reshape(b, c, h, w)


class Sampler(nn.Module):
    def __init__(self, channels, down):
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if down else 1, padding=1)

    def forward(self, x):
        return self.conv(x if self.down else F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """One level of the U: resnets, each followed by a transformer where the level has them, and a sampler."""

    def __init__(self, resnets, transformers, down=None, up=None):
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(transformers) if transformers else None
        self.downsamplers = nn.ModuleList([down]) if down else None
        self.upsamplers = nn.ModuleList([up]) if up else None

    def step(self, i, x, time, context):
        x = self.resnets[i](x, time)
        return self.attentions[i](x, context) if self.attentions else x


class Embedding(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(c_in, c_out), nn.Linear(c_out, c_out)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class UNet(nn.Module):
    def __init__(self, channels=(32, 64, 128), transformers=(0, 1, 1), context=160, pooled=96, ids=32, head=32,
                 resnets=2):
        super().__init__()
        c_time = 4 * channels[0]
        self.channels, self.ids = channels, ids
        self.conv_in = nn.Conv2d(4, channels[0], 3, padding=1)
        self.time_embedding = Embedding(channels[0], c_time)
        self.add_embedding = Embedding(6 * ids + pooled, c_time)
        attention = lambda c, layers: Transformer(c, max(1, c // head), context, layers)
        c, skips, down = channels[0], [channels[0]], []
        for i, width in enumerate(channels):
            last = i == len(channels) - 1
            down.append(Level([Resnet(c if j == 0 else width, width, c_time) for j in range(resnets)],
                              [attention(width, transformers[i]) for _ in range(resnets) if transformers[i]],
                              down=None if last else Sampler(width, True)))
            c = width
            skips += [width] * (resnets if last else resnets + 1)
        self.down_blocks = nn.ModuleList(down)
        self.mid_block = Level([Resnet(c, c, c_time), Resnet(c, c, c_time)], [attention(c, transformers[-1])])
        up = []
        for i, width in reversed(list(enumerate(channels))):
            level = []
            for _ in range(resnets + 1):
                level.append(Resnet(c + skips.pop(), width, c_time))
                c = width
            up.append(Level(level, [attention(width, transformers[i]) for _ in level if transformers[i]],
                            up=Sampler(width, False) if i else None))
        self.up_blocks = nn.ModuleList(up)
        self.conv_norm_out = nn.GroupNorm(GROUPS, channels[0], 1e-5)
        self.conv_out = nn.Conv2d(channels[0], 4, 3, padding=1)

    def forward(self, x, timestep, context, pooled, ids):
        b = x.shape[0]
        time = self.time_embedding(sinusoid(timestep, self.channels[0]).to(x.dtype))
        extra = sinusoid(ids.flatten(), self.ids).view(b, -1).to(pooled.dtype)
        time = F.silu(time + self.add_embedding(torch.cat([pooled, extra], -1)))
        h = self.conv_in(x)
        skips = [h]
        for level in self.down_blocks:
            for i in range(len(level.resnets)):
                h = level.step(i, h, time, context)
                skips.append(h)
            if level.downsamplers:
                h = level.downsamplers[0](h)
                skips.append(h)
        h = self.mid_block.step(0, h, time, context)
        h = self.mid_block.resnets[1](h, time)
        for level in self.up_blocks:
            for i in range(len(level.resnets)):
                h = level.step(i, torch.cat([h, skips.pop()], 1), time, context)
            if level.upsamplers:
                h = level.upsamplers[0](h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


# --- CLIPTextModel and CLIPTextModelWithProjection ---


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return self.out_proj(attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, causal=True))


class MLP(nn.Module):
    def __init__(self, width, quick):
        super().__init__()
        self.quick = quick
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x) if self.quick else F.gelu(x))


class TextLayer(nn.Module):
    def __init__(self, width, heads, quick):
        super().__init__()
        self.self_attn, self.mlp = SelfAttention(width, heads), MLP(width, quick)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class TextEncoder(nn.Module):
    """Returns the penultimate states, as SDXL wants them, and, where there is a projection, the pooled output."""

    def __init__(self, vocabulary, end, width, heads, layers, quick=False, projection=None, positions=77):
        super().__init__()
        self.end = end
        self.text_model = nn.Module()
        self.text_model.embeddings = nn.Module()
        self.text_model.embeddings.token_embedding = nn.Embedding(vocabulary, width)
        self.text_model.embeddings.position_embedding = nn.Embedding(positions, width)
        nn.init.normal_(self.text_model.embeddings.token_embedding.weight, std=.25)
        nn.init.normal_(self.text_model.embeddings.position_embedding.weight, std=.1)
        self.text_model.encoder = nn.Module()
        self.text_model.encoder.layers = nn.ModuleList([TextLayer(width, heads, quick) for _ in range(layers)])
        self.text_model.final_layer_norm = nn.LayerNorm(width)
        if projection:
            self.text_projection = nn.Linear(width, projection, bias=False)

    def forward(self, tokens):
        m = self.text_model
        x = m.embeddings.token_embedding(tokens) + m.embeddings.position_embedding.weight[:tokens.shape[1]]
        *first, last = m.encoder.layers
        for layer in first:
            x = layer(x)
        if not hasattr(self, "text_projection"):
            return x, None      # the last layer is there for the format; nothing reads it
        y = m.final_layer_norm(last(x))
        at = (tokens == self.end).int().argmax(-1)
        return x, self.text_projection(y[torch.arange(len(y), device=y.device), at])


def text_encoders(tokenizer):
    size, end = len(tokenizer.vocabulary), tokenizer.end
    return (TextEncoder(size, end, 64, 2, 3, quick=True),
            TextEncoder(size, end, 96, 3, 4, projection=96))


# --- AutoencoderTiny ---

WIDTH, ENCODER_BLOCKS, DECODER_BLOCKS = 32, (0, 1, 2, 2), (3, 3, 2, 1)


class TinyBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        conv = lambda: nn.Conv2d(c, c, 3, padding=1)
        self.conv = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv())
        self.conv[4].weight.data.mul_(.3)       # there are no norms: begin near the identity

    def forward(self, x):
        return F.relu(self.conv(x) + x)


class TinyEncoder(nn.Module):
    def __init__(self, width=WIDTH, blocks=ENCODER_BLOCKS):
        super().__init__()
        layers = []
        for i, n in enumerate(blocks):
            layers.append(nn.Conv2d(width, width, 3, padding=1, stride=2, bias=False) if i
                          else nn.Conv2d(3, width, 3, padding=1))
            layers += [TinyBlock(width) for _ in range(n)]
        layers.append(nn.Conv2d(width, 4, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x.add(1).div(2))


class TinyDecoder(nn.Module):
    def __init__(self, width=WIDTH, blocks=DECODER_BLOCKS):
        super().__init__()
        layers = [nn.Conv2d(4, width, 3, padding=1), nn.ReLU()]
        for i, n in enumerate(blocks):
            layers += [TinyBlock(width) for _ in range(n)]
            last = i == len(blocks) - 1
            if not last:
                layers.append(nn.Upsample(scale_factor=2))
            layers.append(nn.Conv2d(width, 3 if last else width, 3, padding=1, bias=last))
        self.layers = nn.Sequential(*layers)

    def forward(self, z):
        return self.layers(torch.tanh(z / 3) * 3).mul(2).sub(1)


class Autoencoder(nn.Module):
    """Pixels in [-1,1] to latents of mean 0 and deviation 1 and back. `normalize` folds the normalisation into the
    weights, so that diffusers needs no scaling factor."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = TinyEncoder(), TinyDecoder()

    @torch.no_grad()
    def normalize(self, mean, std):
        last, first = self.encoder.layers[-1], self.decoder.layers[0]
        # z = std z' + mean. The decoder's clamp and its zero border make this inexact; it goes on training after it.
        first.bias += (first.weight.sum((2, 3)) * mean).sum(1)
        first.weight *= std[None, :, None, None]
        last.weight /= std[:, None, None, None]
        last.bias.copy_((last.bias - mean) / std)


# --- the judge ---


class Judge(nn.Module):
    """A small classifier of pictures in [0,1]; only convolutions, ReLUs, a mean and matrix products."""

    def __init__(self, classes, size=128, width=24, features=64):
        super().__init__()
        w = width
        conv = lambda i, o, s=1: nn.Sequential(nn.Conv2d(i, o, 3, stride=s, padding=1, bias=False), nn.BatchNorm2d(o),
                                               nn.ReLU())
        self.body = nn.Sequential(conv(3, w, 2), conv(w, 2 * w, 2), conv(2 * w, 2 * w), conv(2 * w, 3 * w, 2),
                                  conv(3 * w, 3 * w), conv(3 * w, 4 * w, 2), conv(4 * w, 4 * w))
        # Where things are matters: beside the mean, two learnt weightings of the whole map for every channel.
        self.spread = nn.Conv2d(4 * w, 8 * w, size // 16, groups=4 * w)
        self.features = nn.Linear(12 * w, features)
        self.head = nn.Linear(features, classes)

    def forward(self, x):
        x = self.body(x * 2 - 1)
        x = torch.cat([x.mean((2, 3)), self.spread(x).flatten(1)], 1)
        features = F.relu(self.features(x))
        return self.head(features), features
