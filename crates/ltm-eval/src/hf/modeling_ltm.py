"""An exported Latent Thought Model for `AutoModelForCausalLM`.

`forward` returns log-probabilities under prequential scoring: each block of tokens is predicted from latents that are
fitted to the tokens before it, so that their sum is a code length, comparable with that of an autoregressive model.
A text begins with the separator of documents, as the tokenizer writes it.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from .configuration_ltm import LtmConfig
from .decoder_ltm import parameter_shapes
from .posterior_ltm import Inference


class LtmForCausalLM(PreTrainedModel, GenerationMixin):
    """Weights under their published names, and what the latents of a text are fitted by."""

    config_class = LtmConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.sections = config.ltm["config"]
        name, *numbers = config.ltm["protocol"].split(":")
        self.protocol = (name, *map(int, numbers))
        for name, shape in parameter_shapes(self.sections["model"]).items():
            *path, last = name.split(".")
            module = self
            for step in path:
                if step not in module._modules:
                    module.add_module(step, nn.Module())
                module = module._modules[step]
            module.register_parameter(last, nn.Parameter(torch.zeros(shape)))
        self._inference = None
        self.post_init()

    def _init_weights(self, module):
        """Weights come from a file: there is nothing to initialise."""

    @property
    def inference(self):
        """Fits and scores, on the device of the weights."""
        if self._inference is None or self._inference.device != self.device:
            # Its tables take part in fits, whatever mode the first caller is in.
            with torch.inference_mode(False):
                self._inference = Inference(self.sections, self.device)
        return self._inference

    @property
    def weights(self):
        return dict(self.named_parameters())

    @property
    def n_latents(self):
        return self.sections["model"]["n_latents"]

    def forward(self, input_ids, attention_mask=None, labels=None, z=None, **kwargs):
        """Log-probabilities `(B,T,V)` of the token after each position, by the protocol of the configuration.

        With latents `z (B,L·Z,C)` they are the decoder's logits at these, of the last position alone. Padding, where
        `attention_mask` is 0, is ignored before a text; after it, it changes nothing. The loss is that of `labels`, as in
        other causal models: -100 is ignored.
        """
        if z is not None:
            return CausalLMOutput(logits=self.next_logits(input_ids, attention_mask, z))
        padded = attention_mask is not None and bool((attention_mask[:, 0] == 0).any())
        if padded:
            rows = [self.unpadded(row, mask) for row, mask in zip(input_ids, attention_mask)]
            logits = [self.log_probs(row[None])[0] for row in rows]
            length = input_ids.shape[1]
            logits = torch.stack([F.pad(x, (0, 0, length - len(x), 0)) for x in logits])
        else:
            logits = self.log_probs(input_ids)
        loss = None
        if labels is not None:
            predicted = logits[:, :-1].flatten(0, 1)
            loss = F.cross_entropy(predicted, labels[:, 1:].flatten(), ignore_index=-100)
        return CausalLMOutput(loss=loss, logits=logits)

    def log_probs(self, input_ids):
        self.check_length(input_ids, "input_ids")
        if self.n_latents == 0:
            return F.log_softmax(self.inference.decoder.logits(self.weights, input_ids, None).float(), -1)
        # Every text has the same number, so that its score depends on no other.
        key = self.inference.key([0] * len(input_ids))
        return self.inference.log_probs(self.weights, input_ids, key, *self.protocol[1:])

    def check_length(self, ids, name):
        most, found = self.sections["model"]["max_seq_len"], ids.shape[1]
        if found > most:
            raise ValueError(f"{name}: expected at most {most} tokens, the context, found {found}")

    @staticmethod
    def unpadded(row, mask):
        return row[mask.to(torch.bool)]

    def split(self, input_ids):
        """Tokens and the targets that follow them."""
        self.check_length(input_ids[:, 1:], "input_ids")
        return input_ids[:, :-1], input_ids[:, 1:]

    # Latents

    def fit(self, input_ids, numbers=None):
        """The posterior of texts `(B,T)` that begin with the separator: `mu` and `log_var`, `(B,L·Z,C)`.

        The random numbers of a text are those of its number: 0 for all of them by default.
        """
        tokens, targets = self.split(input_ids)
        numbers = [0] * len(tokens) if numbers is None else numbers
        return self.inference.fit(self.weights, tokens, targets, self.inference.key(numbers))

    @torch.no_grad()
    def encode(self, input_ids):
        """The posterior that the encoder predicts of texts, in one pass."""
        return self.inference.encode(self.weights, self.split(input_ids)[1])

    @torch.no_grad()
    def nll(self, input_ids, z=None):
        """NLL `(B,T-1)` of each token after the first, at latents `z (B,L·Z,C)`; None for a model without latents."""
        return self.inference.token_nll(self.weights, *self.split(input_ids), z)

    @torch.no_grad()
    def elbo(self, input_ids, samples=8, numbers=None):
        """The negative evidence lower bound of texts in nats, `(B)`, with its two terms: NLL and KL."""
        numbers = [0] * len(input_ids) if numbers is None else numbers
        key = self.inference.key(numbers)
        return self.inference.elbo(self.weights, *self.split(input_ids), key, samples)

    @torch.no_grad()
    def prequential(self, input_ids, stride=None, samples=None, numbers=None):
        """The prequential score of texts in nats, `(B)`; by default with the stride and samples of the configuration."""
        tokens, targets = self.split(input_ids)
        if self.n_latents == 0:
            return self.nll(input_ids).double().sum(1)
        numbers = [0] * len(input_ids) if numbers is None else numbers
        stride, samples = stride or self.protocol[1], samples or self.protocol[2]
        key = self.inference.key(numbers)
        return self.inference.prequential(self.weights, tokens, targets, key, stride, samples)

    # Generation

    @torch.no_grad()
    def latents(self, input_ids, attention_mask=None, seed=0):
        """A sample `(B,L·Z,C)` of the posterior of each prompt, or of the prior for a prompt of the separator alone."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        found = []
        for row, kept in zip(input_ids, mask):
            ids = self.unpadded(row, kept)[None]
            self.check_length(ids, "prompt")
            inference, key = self.inference, self.inference.key([0], step=0, seed=seed)
            if ids.shape[1] < 2:
                noise = inference.noise(key, "score", 0, 0)
                found.append(inference.prior_sample(self.weights, noise.numbers))
                continue
            tokens, targets = self.split(ids)
            q = inference.fit(self.weights, tokens, targets, key)
            rank = 0 if q.columns is None else q.columns.shape[2]
            found.append(q.sample(inference.noise(key, "score", 0, rank)))
        return torch.cat(found)

    @torch.no_grad()
    def generate(self, inputs=None, *args, seed=0, **kwargs):
        """As `GenerationMixin.generate`, with latents that are fitted once to each prompt; `seed` is that of the latents.

        Where the context is full, the last half of its tokens is read again, so that older ones act through the latents
        alone.
        """
        if inputs is None:
            inputs = kwargs.pop("input_ids")
        if kwargs.get("z") is None:
            none = inputs.new_zeros(len(inputs), 0, 0, dtype=torch.float32)
            mask = kwargs.get("attention_mask")
            kwargs["z"] = self.latents(inputs, mask, seed) if self.n_latents else none
        kwargs["use_cache"] = False
        return super().generate(inputs, *args, **kwargs)

    def prepare_inputs_for_generation(self, input_ids, z=None, attention_mask=None, **kwargs):
        return {"input_ids": input_ids, "attention_mask": attention_mask, "z": z}

    def next_logits(self, input_ids, attention_mask, z):
        """The decoder's logits `(B,1,V)` after the last position."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        logits = []
        for row, kept, latents in zip(input_ids, mask, z):
            ids = self.read(self.unpadded(row, kept))[None]
            at = latents[None] if self.n_latents else None
            logits.append(self.inference.decoder.logits(self.weights, ids, at)[:, -1:])
        return torch.cat(logits)

    def read(self, ids):
        """The tokens that the decoder has of a text: all, or where the context was full those from its last half on."""
        most = self.sections["model"]["max_seq_len"]
        half = (most + 1) // 2
        if len(ids) <= most:
            return ids
        return ids[-(half + (len(ids) - most - 1) % (most - half + 1)) :]
