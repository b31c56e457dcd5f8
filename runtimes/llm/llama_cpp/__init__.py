"""llama.cpp through the C functions that llama-cpp-python binds; used by its engine in `runtimes/engines/`.

library     the binding, loaded once; llama.cpp's log; the flag that stops a computation
memory      how much memory a model needs, before it is loaded
sampling    the sampler chains that choose the next token
requests    one continuation: the request and its state
scheduler   the single thread that computes, for all slots together
session     the TextSession
rpc         llama.cpp's RPC workers on other machines
"""
