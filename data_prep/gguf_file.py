"""A causal language model in a GGUF file (llama.cpp's format) as a Hugging Face folder; numbers as float32."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DataError

# Of each architecture that llama.cpp names: Hugging Face's model_type, and whether its queries and keys lie as
# llama.cpp turns them, the two numbers of a pair side by side instead of half a head apart.
ARCHITECTURES = {"llama": ("llama", True), "qwen2": ("qwen2", False), "qwen3": ("qwen3", False)}
# In front of byte-level BPE, by the name in the file.
PRE_TOKENISERS = {"smollm": "digits", "gpt-2": "plain", "default": "plain", "gpt2": "plain"}
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NORMAL, _CONTROL = 1, 3  # kinds of tokens


class GgufFile:
    """Raises DataError naming the file, what was found and what was expected."""

    def __init__(self, path: Path) -> None:
        try:
            from gguf import GGUFReader
        except ImportError:
            raise DataError(
                "the Python package 'gguf' is missing (pip install gguf, or run setup.sh)"
            ) from None
        self.path = path
        try:
            self._reader = GGUFReader(path)
        except Exception as error:  # the library raises many kinds
            raise DataError(f"{path}: is not a GGUF file that can be read: {error}") from None
        architecture = self._needed("general.architecture")
        if architecture not in ARCHITECTURES:
            raise DataError(
                f"{path}: a model of the architecture '{architecture}'; known: {', '.join(ARCHITECTURES)}"
            )
        self._architecture = architecture
        self.model_type, self._turned = ARCHITECTURES[architecture]

    def value(self, name: str, absent: Any = None) -> Any:
        """An entry of the metadata."""
        field = self._reader.get_field(name)
        return absent if field is None else field.contents()

    def _needed(self, name: str) -> Any:
        value = self.value(name)
        if value is None:
            raise DataError(f"{self.path}: the entry '{name}' is missing")
        return value

    def config(self) -> dict[str, Any]:
        """As transformers writes it."""

        def own(name: str, absent: Any = None) -> Any:
            whole = f"{self._architecture}.{name}"
            return self._needed(whole) if absent is None else self.value(whole, absent)

        if any(tensor.name == "rope_freqs.weight" for tensor in self._reader.tensors):
            raise DataError(
                f"{self.path}: scaled rotary positions, which GGUF holds as numbers; take the model from the hub"
            )
        if self.value(f"{self._architecture}.rope.scaling.type", "none") not in ("none", None):
            raise DataError(
                f"{self.path}: scaled rotary positions, which are not read here; take the model from the hub"
            )
        names = {tensor.name for tensor in self._reader.tensors}
        width, heads = int(own("embedding_length")), int(own("attention.head_count"))
        end = self.value("tokenizer.ggml.eos_token_id")
        config = {
            "architectures": [f"{self.model_type.capitalize()}ForCausalLM"],
            "model_type": self.model_type,
            "hidden_act": "silu",
            "num_hidden_layers": int(own("block_count")),
            "hidden_size": width,
            "num_attention_heads": heads,
            "num_key_value_heads": int(own("attention.head_count_kv", heads)),
            "head_dim": int(own("attention.key_length", width // heads)),
            "intermediate_size": int(own("feed_forward_length")),
            "max_position_embeddings": int(own("context_length")),
            "vocab_size": len(self._needed("tokenizer.ggml.tokens")),
            "bos_token_id": self.value("tokenizer.ggml.bos_token_id"),
            "eos_token_id": end,
            "rms_norm_eps": round(float(own("attention.layer_norm_rms_epsilon")), 12),
            "rope_theta": float(own("rope.freq_base", 10000.0)),
            "tie_word_embeddings": "output.weight" not in names,
            "dtype": "float32",
        }
        return {name: value for name, value in config.items() if value is not None}

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Hugging Face's names, float32, [out, in]."""
        from gguf.quants import dequantize

        config = self.config()
        for tensor in self._reader.tensors:
            name, kind = self._name_of(tensor.name)
            numbers = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
            numbers = numbers.reshape([int(length) for length in reversed(tensor.shape)])
            if self._turned and kind in ("attn_q", "attn_k"):
                heads = config["num_attention_heads" if kind == "attn_q" else "num_key_value_heads"]
                pairs = numbers.reshape(heads, numbers.shape[0] // heads // 2, 2, -1)
                numbers = pairs.swapaxes(1, 2).reshape(numbers.shape)
            yield name, np.ascontiguousarray(numbers)

    def _name_of(self, name: str) -> tuple[str, str]:
        if name in _OUTER:
            return _OUTER[name], ""
        parts = name.split(".")
        if len(parts) == 4 and parts[0] == "blk" and parts[2] in _INNER:
            return f"model.layers.{parts[1]}.{_INNER[parts[2]]}.{parts[3]}", parts[2]
        raise DataError(f"{self.path}: a tensor '{name}', which a model of {self.model_type} does not have")

    def tokeniser_config(self) -> dict[str, Any]:
        """tokenizer_config.json as transformers reads it: the tokens that begin and end a text, and the chat
        template, of what the file has."""
        tokens = self._needed("tokenizer.ggml.tokens")
        config = {"tokenizer_class": "PreTrainedTokenizerFast"}
        for name in ("bos", "eos"):
            number = self.value(f"tokenizer.ggml.{name}_token_id")
            if number is not None and number < len(tokens):
                config[f"{name}_token"] = tokens[number]
        template = self.value("tokenizer.chat_template")
        return config | ({"chat_template": template} if template is not None else {})

    def tokeniser(self) -> bytes:
        """The tokenizer.json of its byte-level BPE."""
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        kind = self._needed("tokenizer.ggml.model")
        before = self.value("tokenizer.ggml.pre", "default")
        if kind != "gpt2" or before not in PRE_TOKENISERS:
            raise DataError(
                f"{self.path}: a tokeniser of the kind '{kind}', '{before}'; known: byte-level BPE ('gpt2') with"
                f" {', '.join(PRE_TOKENISERS)}. Take the model from the hub"
            )
        tokens, kinds = self._needed("tokenizer.ggml.tokens"), self._needed("tokenizer.ggml.token_type")
        merges = [tuple(merge.split(" ")) for merge in self._needed("tokenizer.ggml.merges")]
        ids = {token: number for number, token in enumerate(tokens)}
        tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = (
            pre_tokenizers.Sequence([digits, byte_level])
            if PRE_TOKENISERS[before] == "digits"
            else byte_level
        )
        tokenizer.decoder = decoders.ByteLevel()
        special = [token for token, kind in zip(tokens, kinds) if kind == _CONTROL]
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
        return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False).encode()
