"""The configuration of an exported Latent Thought Model."""

from transformers import PretrainedConfig


class LtmConfig(PretrainedConfig):
    """The keys of `transformers`, and under `ltm` what the model's own programs recorded of it.

    `ltm["config"]` has the sections of the run's configuration file; docs/configuration.md of the project describes each
    key. `ltm["protocol"]` names the protocol of the log-probabilities that `forward` returns.
    """

    model_type = "ltm"

    def __init__(self, ltm=None, **kwargs):
        self.ltm = ltm or {}
        super().__init__(**kwargs)
