"""The tokenizer of an exported Latent Thought Model: the ids of its `tokenizer.json`, as the model was trained on them."""

import os
import shutil

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizer


class LtmTokenizer(PreTrainedTokenizer):
    """Special tokens in a text are the text that they are. A text begins with the separator of documents unless
    `add_special_tokens=False`, and ids past the vocabulary are written in shorter tokens of it.
    """

    vocab_files_names = {"vocab_file": "tokenizer.json"}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file=None, vocab_size=None, add_bos_token=True, **kwargs):
        self.vocab_file, self.add_bos_token = vocab_file, add_bos_token
        self.library = Tokenizer.from_file(vocab_file)
        self.library.encode_special_tokens = True
        self.library.no_truncation()
        self.library.no_padding()
        vocabulary = self.library.get_vocab(with_added_tokens=True)
        self.size = len(vocabulary) if vocab_size is None else vocab_size
        self.ids = {token: id for token, id in vocabulary.items() if id < self.size}
        self.tokens = {id: token for token, id in self.ids.items()}
        self.longest = max(map(len, self.ids))
        kwargs["split_special_tokens"] = True
        super().__init__(vocab_size=vocab_size, add_bos_token=add_bos_token, **kwargs)

    @property
    def vocab_size(self):
        return self.size

    def get_vocab(self):
        return dict(self.ids)

    def _tokenize(self, text, **kwargs):
        encoding = self.library.encode(text, add_special_tokens=False)
        return [part for token in encoding.tokens for part in self.spelled(token)]

    def spelled(self, token):
        """A token that is not in the vocabulary in the longest tokens that begin what is left of it."""
        if token in self.ids:
            return [token]
        parts = []
        while token:
            lengths = range(min(len(token), self.longest), 0, -1)
            length = next((length for length in lengths if token[:length] in self.ids), None)
            if length is None:
                raise ValueError(f"the vocabulary has no token for {token!r}")
            parts.append(token[:length])
            token = token[length:]
        return parts

    def _convert_token_to_id(self, token):
        return self.ids.get(token)

    def _convert_id_to_token(self, index):
        return self.tokens.get(int(index), "\ufffd")

    def convert_tokens_to_string(self, tokens):
        ids = [self.ids[token] for token in tokens if token in self.ids]
        return self.library.decode(ids, skip_special_tokens=False)

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        first = [self.bos_token_id] if self.add_bos_token else []
        return first + token_ids_0 + (token_ids_1 or [])

    def get_special_tokens_mask(self, token_ids_0, token_ids_1=None, already_has_special_tokens=False):
        if already_has_special_tokens:
            return [int(id == self.bos_token_id) for id in token_ids_0]
        first = [1] if self.add_bos_token else []
        return first + [0] * (len(token_ids_0) + len(token_ids_1 or []))

    def save_vocabulary(self, save_directory, filename_prefix=None):
        name = f"{filename_prefix}-tokenizer.json" if filename_prefix else "tokenizer.json"
        path = os.path.join(save_directory, name)
        if os.path.abspath(path) != os.path.abspath(self.vocab_file):
            shutil.copyfile(self.vocab_file, path)
        return (path,)
