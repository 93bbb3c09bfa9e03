"""A Latent Thought Model in PyTorch, the peer of `cargo xtask bench step --peer torch`.

Weights, tokens and noise come from our program; the decoder is that of exported models.
`torch_ltm.py FOLDER VARIANT THREADS` reads a command a line and answers each with a line of JSON:
`gradients FILE` writes loss and gradients, `iterate S` takes S fast steps and one slow step.
"""

import json
import math
import os
import pathlib
import sys
from typing import NamedTuple

# Answers leave through a descriptor of their own, so that no library can print between them.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

root = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(root / "crates/ltm-eval/src/hf"))

from decoder_ltm import Decoder  # noqa: E402


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
        self.tokens = tokens
        self.decoder = Decoder(setup["model"], tokens.shape[1])
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
            logits = self.decoder.logits(weights, self.tokens, z).flatten(0, 1)
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
