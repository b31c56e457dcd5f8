"""llama.cpp through the C functions that llama-cpp-python binds; used by its engine in `runtimes/engines/`.

library     the binding, loaded once; llama.cpp's log; the flag that stops a computation
memory      how much memory a model needs, before it is loaded
sampling    the sampler chains that choose the next token
sequence    the tokens in a context's memory: reused, evaluated, dropped
session     the TextSession
rpc         llama.cpp's RPC workers on other machines
"""
