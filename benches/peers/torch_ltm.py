"""A Latent Thought Model in PyTorch, the peer of `cargo xtask bench step --peer torch`.

Weights, tokens and noise come from our program, the maths is that of `crates/ltm-model/src/model.rs`.
`torch_ltm.py FOLDER VARIANT THREADS` reads a command a line and answers each with a line of JSON:
`gradients FILE` writes loss and gradients, `iterate S` takes S fast steps and one slow step.
"""

import json
import math
import os
import sys
from typing import NamedTuple

# Answers leave through a descriptor of their own, so that no library can print between them.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402


class Variant(NamedTuple):
    """How a fast step is taken."""

    #: Whether the fast steps leave the weights' gradients alone; the published code adds them up.
    frozen: bool
    compiled: bool = False
    bf16: bool = False


VARIANTS = {
    "released": Variant(frozen=False),
    "frozen": Variant(frozen=True),
    "compiled": Variant(frozen=True, compiled=True),
    "released_bf16": Variant(frozen=False, bf16=True),
    "frozen_bf16": Variant(frozen=True, bf16=True),
    "compiled_bf16": Variant(frozen=True, compiled=True, bf16=True),
}


class Decoder:
    """The decoder as a function of its weights, so that they may be given with or without gradients."""

    def __init__(self, model, tokens):
        self.model = model
        self.tokens = tokens
        self.latents = model["n_latents"] // model["n_layers"]
        t, window = tokens.shape[1], model["window"]
        # The stride counts the latents of all layers.
        stride = model["max_seq_len"] // max(model["n_latents"], 1)
        self.token_angles = self.angles(torch.arange(t))
        self.latent_angles = self.angles(torch.arange(self.latents) * stride)
        # A window that holds the whole text is plain causal attention, which has a faster kernel.
        row, column = torch.arange(t)[:, None], torch.arange(t)[None, :]
        self.mask = (column <= row) & (column > row - window) if window < t else None

    def angles(self, positions):
        """Cosine and sine `(T,1,D/2)` of every position's angles, rounded like ours."""
        d = self.model["dim"] // self.model["n_heads"]
        exponents = torch.arange(0, d, 2, dtype=torch.float64) / d
        frequencies = (1.0 / self.model["rope_theta"] ** exponents).float()
        angles = (positions[:, None].float() * frequencies).double()[:, None, :]
        return angles.cos().float(), angles.sin().float()

    def hidden(self, weights, z):
        """Tokens `(B,T)` and latents `(B,L·Z,C)` to the last norm's `(B,T,C)`."""
        h = F.embedding(self.tokens, weights["tok_embeddings.weight"])
        for layer in range(self.model["n_layers"]):
            own = {
                name.removeprefix(prefix): weight
                for prefix in [f"layers.{layer}."]
                for name, weight in weights.items()
                if name.startswith(prefix)
            }
            x = self.norm(h, own["attention_norm.weight"])
            h = h + self.attention(own, "attention", x, x, self.token_angles)
            if self.latents:
                x = self.norm(h, own["cross_attention_norm.weight"])
                z_layer = z[:, layer * self.latents : (layer + 1) * self.latents]
                h = h + self.attention(own, "cross_attention", x, z_layer, self.latent_angles)
            x = self.norm(h, own["ffn_norm.weight"])
            gate = F.linear(x, own["feed_forward.w1.weight"])
            up = F.linear(x, own["feed_forward.w3.weight"])
            h = h + F.linear(F.silu(gate) * up, own["feed_forward.w2.weight"])
        return self.norm(h, weights["norm.weight"])

    def norm(self, x, weight):
        return F.rms_norm(x, weight.shape, weight, self.model["norm_eps"])

    def attention(self, own, kind, x, source, source_angles):
        """Queries from `x`; keys and values from `source`, which is `x` itself in self-attention."""
        heads, groups = self.model["n_heads"], self.model["n_kv_heads"]
        project = lambda part, x, n: F.linear(x, own[f"{kind}.{part}.weight"]).unflatten(-1, (n, -1))
        q = rotate(project("wq", x, heads), self.token_angles).transpose(1, 2)
        k = rotate(project("wk", source, groups), source_angles).transpose(1, 2)
        v = project("wv", source, groups).transpose(1, 2)
        is_self = kind == "attention"
        mask = self.mask if is_self else None
        causal = is_self and mask is None
        gqa = groups < heads
        x = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, enable_gqa=gqa)
        return F.linear(x.transpose(1, 2).flatten(-2), own[f"{kind}.wo.weight"])


def rotate(x, angles):
    """Rotates the pairs `(2i, 2i+1)` of `x (B,T,H,D)`."""
    (cos, sin), (even, odd) = angles, x.float().unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return rotated.flatten(-2).type_as(x)


class Peer:
    def __init__(self, folder, variant):
        self.variant = variant
        with open(os.path.join(folder, "setup.json")) as file:
            setup = json.load(file)
        self.infer, self.train = setup["infer"], setup["train"]
        inputs = load_file(os.path.join(folder, "inputs.safetensors"))
        tokens, targets = (inputs.pop(name).long() for name in ("tokens", "targets"))
        self.targets = targets.flatten()
        self.scored = int((targets >= 0).sum())
        self.posterior = [inputs.pop(name) for name in ("mu", "log_var", "noise")]
        self.decoder = Decoder(setup["model"], tokens)
        self.weights = {name: weight.requires_grad_() for name, weight in inputs.items()}
        matrices = [weight for weight in self.weights.values() if weight.dim() > 1]
        vectors = [weight for weight in self.weights.values() if weight.dim() == 1]
        decay = self.train["weight_decay"]
        groups = [
            {"params": matrices, "weight_decay": decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        lr, betas = self.train["lr"], tuple(self.train["betas"])
        self.slow_adamw = torch.optim.AdamW(groups, lr=lr, betas=betas, fused=variant.frozen)
        compiled = torch.compile if variant.compiled else lambda function: function
        self.bound, self.nll = compiled(self.bound), compiled(self.nll)

    def nll(self, weights, z):
        """Negative log-likelihood of the batch in nats."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.variant.bf16):
            hidden = self.decoder.hidden(weights, z)
            logits = F.linear(hidden, weights["tok_embeddings.weight"]).flatten(0, 1)
        return F.cross_entropy(logits.float(), self.targets, ignore_index=-1, reduction="sum")

    def bound(self, weights, mu, log_var, noise):
        """What the fast steps minimise, in nats: the likelihood at the sample, and the divergence."""
        nll = self.nll(weights, mu + noise * torch.exp(log_var / 2))
        kl = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum()
        return nll + kl

    def fast_gradients(self, mu, log_var, noise):
        """Leaves the gradients with `mu` and `log_var`; of the weights only where nothing is frozen."""
        weights = self.weights
        if self.variant.frozen:
            weights = {name: weight.detach() for name, weight in weights.items()}
        bound = self.bound(weights, mu, log_var, noise)
        bound.backward()
        return bound

    def slow_gradients(self, mu, log_var, noise):
        """Adds the gradients of the mean cross-entropy to those of the weights."""
        with torch.no_grad():
            z = mu + noise * torch.exp(log_var / 2)
        loss = self.nll(self.weights, z) / self.scored
        loss.backward()
        return loss

    def gradients(self, path):
        mu, log_var, noise = (x.clone().requires_grad_() for x in self.posterior)
        bound = self.fast_gradients(mu, log_var, noise.detach())
        self.slow_adamw.zero_grad()
        loss = self.slow_gradients(mu, log_var, noise)
        results = {name: weight.grad for name, weight in self.weights.items()}
        results |= {"bound": bound.detach(), "loss": loss.detach()}
        results |= {"mu": mu.grad, "log_var": log_var.grad}
        save_file(results, path)
        self.slow_adamw.zero_grad()

    def iterate(self, steps):
        """One batch: the posterior from its start, `steps` fast steps, one slow step."""
        infer, shape = self.infer, self.posterior[0].shape
        mu = (infer["init_mu_std"] * torch.randn(shape)).requires_grad_()
        log_var = infer["init_log_var_mean"] + infer["init_log_var_std"] * torch.randn(shape)
        log_var.requires_grad_()
        noise = torch.randn(shape)
        betas, eps = (infer["beta1"], infer["beta2"]), infer["eps"]
        adamw = torch.optim.AdamW(
            [mu, log_var],
            lr=infer["lr"],
            betas=betas,
            eps=eps,
            weight_decay=infer["weight_decay"],
            fused=self.variant.frozen,
        )
        for step in range(steps):
            last = infer["lr"] * infer["final_ratio"]
            wave = (1 + math.cos(math.pi * step / steps)) / 2
            for group in adamw.param_groups:
                group["lr"] = last + (infer["lr"] - last) * wave
            adamw.zero_grad()
            self.fast_gradients(mu, log_var, noise)
            adamw.step()
        loss = self.slow_gradients(mu, log_var, noise)
        torch.nn.utils.clip_grad_norm_(self.weights.values(), self.train["clip"])
        self.slow_adamw.step()
        self.slow_adamw.zero_grad()
        return loss.item()


def main():
    folder, name, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    peer = Peer(folder, VARIANTS[name])
    version, cpu = torch.__version__, torch.backends.cpu.get_cpu_capability()
    reply({"peer": f"PyTorch {version}", "cpu": cpu})
    for line in sys.stdin:
        command, argument = line.split(maxsplit=1)
        argument = argument.rstrip("\n")
        if command == "gradients":
            peer.gradients(argument)
            reply({})
        elif command == "iterate":
            reply({"loss": peer.iterate(int(argument))})
        else:
            reply({"error": f"unknown command `{command}`"})


def reply(answer):
    print(json.dumps(answer), file=answers, flush=True)


main()
