"""Well-known chat templates by name, for models whose file has none. Each is the one its family was trained with.

Each ends with the text that makes the model answer. Sources: the model cards and `tokenizer_config.json` of the
families named above each template.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BuiltinTemplate:
    """A chat template that users choose by name.

    text: The Jinja source.
    about: The models it is for, in a few words.
    stops: Markers that the model writes as plain text if its file does not define them as tokens.
    """

    text: str
    about: str
    stops: tuple[str, ...] = ()


# meta-llama/Llama-2-7b-chat-hf
_LLAMA2 = """\
{% set ns = namespace(system='') %}
{% for message in messages %}
{% if message.role == 'system' %}
{% set ns.system = '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' %}
{% elif message.role == 'user' %}
{{ bos_token + '[INST] ' + ns.system + message.content.strip() + ' [/INST]' }}
{% set ns.system = '' %}
{% elif message.role == 'assistant' %}
{{ ' ' + message.content.strip() + ' ' + eos_token }}
{% endif %}
{% endfor %}"""

# meta-llama/Meta-Llama-3-8B-Instruct
_LLAMA3 = """\
{{ bos_token }}
{% for message in messages %}
{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content.strip() + '<|eot_id|>' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{% endif %}"""

# mistralai/Mistral-7B-Instruct-v0.2: no system role; the system text starts the first question
_MISTRAL = """\
{{ bos_token }}
{% set ns = namespace(system='') %}
{% for message in messages %}
{% if message.role == 'system' %}
{% set ns.system = message.content + '\\n\\n' %}
{% elif message.role == 'user' %}
{{ '[INST] ' + ns.system + message.content + ' [/INST]' }}
{% set ns.system = '' %}
{% elif message.role == 'assistant' %}
{{ message.content + eos_token }}
{% endif %}
{% endfor %}"""

# OpenAI's ChatML; Qwen 1.5 to 3, Yi, OpenHermes
_CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{% endif %}"""

# The default system text of Stanford Alpaca, which Dolly uses too
_INSTRUCTION_SYSTEM = """\
{% if messages[0].role == 'system' %}
{{ messages[0].content + '\\n\\n' }}
{% else %}
{{ 'Below is an instruction that describes a task. Write a response that appropriately completes the request.\\n\\n' }}
{% endif %}
"""

# tatsu-lab/stanford_alpaca, prompt_no_input; several turns as alpaca.cpp's chat wrote them
_ALPACA = (
    "{{ bos_token }}"
    + _INSTRUCTION_SYSTEM
    + """\
{% for message in messages %}
{% if message.role == 'user' %}
{{ '### Instruction:\\n' + message.content + '\\n\\n### Response:\\n' }}
{% elif message.role == 'assistant' %}
{{ message.content + eos_token + '\\n\\n' }}
{% endif %}
{% endfor %}"""
)

# lmsys/vicuna-7b-v1.5, FastChat's `vicuna_v1.1`
_VICUNA = """\
{{ bos_token }}
{% if messages[0].role == 'system' %}
{{ messages[0].content + ' ' }}
{% else %}
{{ 'A chat between a curious user and an artificial intelligence assistant. ' }}
{{ "The assistant gives helpful, detailed, and polite answers to the user's questions. " }}
{% endif %}
{% for message in messages %}
{% if message.role == 'user' %}
{{ 'USER: ' + message.content + ' ASSISTANT:' }}
{% elif message.role == 'assistant' %}
{{ ' ' + message.content + eos_token }}
{% endif %}
{% endfor %}"""

# HuggingFaceH4/zephyr-7b-beta; TinyLlama 1.1B Chat
_ZEPHYR = """\
{% for message in messages %}
{{ '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|assistant|>\\n' }}
{% endif %}"""

# google/gemma-2-2b-it: no system role; the system text starts the first question
_GEMMA = """\
{{ bos_token }}
{% set ns = namespace(system='') %}
{% for message in messages %}
{% if message.role == 'system' %}
{% set ns.system = message.content.strip() + '\\n\\n' %}
{% else %}
{% set role = 'model' if message.role == 'assistant' else message.role %}
{{ '<start_of_turn>' + role + '\\n' + ns.system + message.content.strip() + '<end_of_turn>\\n' }}
{% set ns.system = '' %}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ '<start_of_turn>model\\n' }}
{% endif %}"""

# microsoft/Phi-3-mini-4k-instruct
_PHI3 = """\
{% for message in messages %}
{{ '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|assistant|>\\n' }}
{% endif %}"""

# No chat format: the model continues the text. A text that the model ended is followed by another one, as in
# training; one that was stopped continues with what the user adds.
_PLAIN = """\
{% for message in messages %}
{{ message.content }}
{% if message.role == 'assistant' and not message.stopped %}
{{ bos_token or eos_token }}
{% endif %}
{% endfor %}"""

# antimatter15/alpaca.cpp's chat.cpp, March 2023: what it wrote around every line
_ALPACA_CPP = """\
{{ bos_token + 'Below is an instruction that describes a task. ' }}
{{ 'Write a response that appropriately completes the request.\\n\\n' }}
{% for message in messages %}
{% if message.role == 'user' %}
{{ bos_token + '### Instruction:\\n\\n' + message.content + '\\n### Response:\\n\\n' }}
{% elif message.role == 'assistant' %}
{{ message.content }}
{% if not message.stopped %}
{{ eos_token }}
{% endif %}
{% endif %}
{% endfor %}"""


# databricks/dolly-v2-12b, instruct_pipeline.py
_DOLLY = (
    _INSTRUCTION_SYSTEM
    + """\
{% for message in messages %}
{% if message.role == 'user' %}
{{ '### Instruction:\\n' + message.content + '\\n\\n### Response:\\n' }}
{% elif message.role == 'assistant' %}
{{ message.content + '\\n\\n### End\\n\\n' }}
{% endif %}
{% endfor %}"""
)

# OpenAssistant/oasst-sft-4-pythia-12b-epoch-3.5
_OPENASSISTANT = """\
{% for message in messages %}
{% set role = 'prompter' if message.role == 'user' else message.role %}
{{ '<|' + role + '|>' + message.content + eos_token }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}"""

# stabilityai/stablelm-tuned-alpha-7b
_STABLELM = """\
{% if messages[0].role == 'system' %}
{{ '<|SYSTEM|>' + messages[0].content }}
{% else %}
{{ '<|SYSTEM|># StableLM Tuned (Alpha version)\\n' }}
{{ '- StableLM is a helpful and harmless open-source AI language model developed by StabilityAI.\\n' }}
{{ '- StableLM is excited to be able to help the user, but will refuse to do anything that could be ' }}
{{ 'considered harmful to the user.\\n' }}
{{ '- StableLM is more than just an information source, StableLM is also able to write poetry, ' }}
{{ 'short stories, and make jokes.\\n' }}
{{ '- StableLM will refuse to participate in anything that could harm a human.\\n' }}
{% endif %}
{% for message in messages %}
{% if message.role == 'user' %}
{{ '<|USER|>' + message.content + '<|ASSISTANT|>' }}
{% elif message.role == 'assistant' %}
{{ message.content }}
{% endif %}
{% endfor %}"""

# BlinkDL's RWKV World 6 and 7, as models/templates/llama-cpp-rwkv-world.jinja of llama.cpp
_RWKV = """\
{{ bos_token }}
{% for message in messages %}
{{ {'system': 'System', 'user': 'User', 'assistant': 'Assistant'}[message.role] + ': ' }}
{{ message.content.strip() + '\\n\\n' }}
{% endfor %}
{% if add_generation_prompt %}
{{ 'Assistant:' }}
{% endif %}"""


def _lines_joined(text: str) -> str:
    # The templates above have one statement per line; the models were not trained with the newlines between them.
    return text.replace("\n", "")


NAMED = {
    "alpaca": BuiltinTemplate(
        text=_lines_joined(_ALPACA), about="Stanford Alpaca and its LoRAs", stops=("### Instruction:",)
    ),
    "alpaca-cpp": BuiltinTemplate(
        text=_lines_joined(_ALPACA_CPP), about="Alpaca as chat.cpp of 2023 wrote it", stops=("### Instruction:",)
    ),
    "chatml": BuiltinTemplate(text=_lines_joined(_CHATML), about="Qwen, Yi, OpenHermes", stops=("<|im_end|>",)),
    "dolly": BuiltinTemplate(text=_lines_joined(_DOLLY), about="Dolly v2", stops=("### End", "### Instruction:")),
    "gemma": BuiltinTemplate(text=_lines_joined(_GEMMA), about="Gemma 1 to 3", stops=("<end_of_turn>",)),
    "llama2": BuiltinTemplate(text=_lines_joined(_LLAMA2), about="Llama 2 Chat", stops=("[INST]",)),
    "llama3": BuiltinTemplate(text=_lines_joined(_LLAMA3), about="Llama 3 Instruct", stops=("<|eot_id|>",)),
    "mistral": BuiltinTemplate(text=_lines_joined(_MISTRAL), about="Mistral and Mixtral Instruct", stops=("[INST]",)),
    "openassistant": BuiltinTemplate(
        text=_lines_joined(_OPENASSISTANT), about="OpenAssistant Pythia", stops=("<|prompter|>",)
    ),
    "phi3": BuiltinTemplate(text=_lines_joined(_PHI3), about="Phi-3", stops=("<|end|>",)),
    "plain": BuiltinTemplate(text=_lines_joined(_PLAIN), about="a base model: it continues your text"),
    "rwkv": BuiltinTemplate(text=_lines_joined(_RWKV), about="RWKV World 6 and 7", stops=("\n\nUser:",)),
    "stablelm": BuiltinTemplate(text=_lines_joined(_STABLELM), about="StableLM Tuned Alpha", stops=("<|USER|>",)),
    "vicuna": BuiltinTemplate(text=_lines_joined(_VICUNA), about="Vicuna", stops=("USER:",)),
    "zephyr": BuiltinTemplate(text=_lines_joined(_ZEPHYR), about="Zephyr, TinyLlama Chat", stops=("<|user|>",)),
}
