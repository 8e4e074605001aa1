"""Makes a model in MLC's form: weights, tokenizer, configuration, and a library that Apache TVM compiles for a CPU.

The Llama that is compiled is our own, on tvm.relax.frontend.nn, and exports its functions under MLC's names. It is no
mlc_llm: what it shows is that such a library runs, and its rates say nothing of MLC on a GPU or a phone.
"""
