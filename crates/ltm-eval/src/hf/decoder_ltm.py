"""The decoder of a Latent Thought Model in PyTorch, as a function of its weights, with their names and shapes.

The letters are those of the Rust crates: B sequences of T tokens, width C, L layers with Z latents each, vocabulary V.
"""

import torch
import torch.nn.functional as F

#: Tokens that a feature of the encoder sees: the one at its position, and its neighbours.
ENCODER_SPAN = 3


def parameter_shapes(model):
    """The name of every parameter with its shape, for the section `model` of a configuration."""
    c, v, f = model["dim"], model["vocab_size"], model["ffn_hidden"]
    kv = model["n_kv_heads"] * (c // model["n_heads"])
    latents = model["n_latents"] * c
    shapes = {"tok_embeddings.weight": (v, c)}

    def attention(prefix):
        shapes[f"{prefix}_norm.weight"] = (c,)
        for part, rows in [("wq", c), ("wk", kv), ("wv", kv), ("wo", c)]:
            shapes[f"{prefix}.{part}.weight"] = (rows, c)

    def feed_forward(prefix):
        shapes[f"{prefix}.ffn_norm.weight"] = (c,)
        for part, shape in [("w1", (f, c)), ("w2", (c, f)), ("w3", (f, c))]:
            shapes[f"{prefix}.feed_forward.{part}.weight"] = shape

    for layer in range(model["n_layers"]):
        attention(f"layers.{layer}.attention")
        if latents:
            attention(f"layers.{layer}.cross_attention")
        feed_forward(f"layers.{layer}")
    shapes["norm.weight"] = (c,)
    if model["encoder_width"]:
        e = model["encoder_width"]
        maps = {
            "tok_embeddings": (v + 1, c),
            "features": (e, ENCODER_SPAN * c),
            "mix": (e, e),
            "mu": (latents, e),
            "log_var": (latents, e),
        }
        shapes |= {f"encoder.{part}.weight": shape for part, shape in maps.items()}
        for part, n in [("features", e), ("mix", e), ("log_var", latents)]:
            shapes[f"encoder.{part}.bias"] = (n,)
        for part, n in [("pooled", e), ("mixed", e), ("means", latents)]:
            shapes |= {f"encoder.{part}.gain": (n,), f"encoder.{part}.shift": (n,)}
    part = latents // model["n_layers"]
    for layer in range(model["n_layers"]):
        for idx in range(model["prior_layers"]):
            prefix = f"prior.{layer}.{idx}"
            shapes |= {f"{prefix}.hidden.weight": (c, part // 2), f"{prefix}.hidden.bias": (c,)}
            shapes |= {f"{prefix}.out.weight": (part, c), f"{prefix}.out.bias": (part,)}
    for layer in range(model["map_layers"]):
        attention(f"map.{layer}.attention")
        feed_forward(f"map.{layer}")
    return shapes


class Decoder:
    """The decoder for texts of at most `length` tokens; its weights are arguments, with or without gradients."""

    def __init__(self, model, length):
        self.model = model
        self.latents = model["n_latents"] // model["n_layers"]
        # The stride counts the latents of all layers.
        stride = model["max_seq_len"] // max(model["n_latents"], 1)
        self.token_angles = self.angles(torch.arange(length))
        self.latent_angles = self.angles(torch.arange(self.latents) * stride)
        self.map_angles = self.angles(torch.arange(model["n_latents"]))
        # A window that holds the whole text is plain causal attention, which has a faster kernel.
        row, column = torch.arange(length)[:, None], torch.arange(length)[None, :]
        window = model["window"]
        self.mask = (column <= row) & (column > row - window) if window < length else None

    def angles(self, positions):
        """Cosine and sine `(T,1,D/2)` of every position's angles, rounded like ours."""
        d = self.model["dim"] // self.model["n_heads"]
        exponents = torch.arange(0, d, 2, dtype=torch.float64) / d
        frequencies = (1.0 / self.model["rope_theta"] ** exponents).float()
        angles = (positions[:, None].float() * frequencies).double()[:, None, :]
        return angles.cos().float(), angles.sin().float()

    def to(self, device):
        """Moves its tables to a device."""
        for name in ("token_angles", "latent_angles", "map_angles"):
            setattr(self, name, tuple(table.to(device) for table in getattr(self, name)))
        self.mask = None if self.mask is None else self.mask.to(device)
        return self

    def logits(self, weights, tokens, z):
        """Tokens `(B,T)` and latents `(B,L·Z,C)`, or None without latents, to logits `(B,T,V)`."""
        return F.linear(self.hidden(weights, tokens, z), weights["tok_embeddings.weight"])

    def hidden(self, weights, tokens, z):
        """Tokens `(B,T)` and latents `(B,L·Z,C)` to the last norm's `(B,T,C)`."""
        h = F.embedding(tokens, weights["tok_embeddings.weight"])
        t = tokens.shape[1]
        angles = tuple(table[:t] for table in self.token_angles)
        z = self.mapped(weights, z)
        for layer in range(self.model["n_layers"]):
            own = part(weights, f"layers.{layer}.")
            x = self.norm(h, own["attention_norm.weight"])
            mask = None if self.mask is None else self.mask[:t, :t]
            h = h + self.attention(own, "attention", [x, x], [angles, angles], mask, mask is None)
            if self.latents:
                x = self.norm(h, own["cross_attention_norm.weight"])
                z_layer = z[:, layer * self.latents : (layer + 1) * self.latents]
                tables = [angles, self.latent_angles]
                h = h + self.attention(own, "cross_attention", [x, z_layer], tables)
            h = h + self.feed_forward(own, h)
        return self.norm(h, weights["norm.weight"])

    def mapped(self, weights, z):
        """What the decoder attends to: the latents, or what `map_layers` make of them."""
        for layer in range(self.model["map_layers"]):
            own = part(weights, f"map.{layer}.")
            x = self.norm(z, own["attention_norm.weight"])
            z = z + self.attention(own, "attention", [x, x], [self.map_angles, self.map_angles])
            z = z + self.feed_forward(own, z)
        return z

    def feed_forward(self, own, h):
        x = self.norm(h, own["ffn_norm.weight"])
        gate = F.linear(x, own["feed_forward.w1.weight"])
        up = F.linear(x, own["feed_forward.w3.weight"])
        return F.linear(F.silu(gate) * up, own["feed_forward.w2.weight"])

    def norm(self, x, weight):
        return F.rms_norm(x, weight.shape, weight, self.model["norm_eps"])

    def attention(self, own, kind, sources, angles, mask=None, causal=False):
        """Queries from the first of `sources`; keys and values from the second, rotated by their `angles`."""
        heads, groups = self.model["n_heads"], self.model["n_kv_heads"]
        project = lambda part, x, n: F.linear(x, own[f"{kind}.{part}.weight"]).unflatten(-1, (n, -1))
        q = rotate(project("wq", sources[0], heads), angles[0]).transpose(1, 2)
        k = rotate(project("wk", sources[1], groups), angles[1]).transpose(1, 2)
        v = project("wv", sources[1], groups).transpose(1, 2)
        gqa = groups < heads
        x = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, enable_gqa=gqa)
        return F.linear(x.transpose(1, 2).flatten(-2), own[f"{kind}.wo.weight"])


def part(weights, prefix):
    """The weights whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): weight
        for name, weight in weights.items()
        if name.startswith(prefix)
    }


def rotate(x, angles):
    """Rotates the pairs `(2i, 2i+1)` of `x (B,T,H,D)`."""
    (cos, sin), (even, odd) = angles, x.float().unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return rotated.flatten(-2).type_as(x)
