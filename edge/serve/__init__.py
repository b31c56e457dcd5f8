"""Serve a language model over HTTP with llama.cpp's own server behind a guarding proxy, and a chat page.

served_model    the served model: a local file, or a server elsewhere
llama_server    the child process: find, start, watch and end it
upstream        HTTP to llama-server, byte for byte
template_guard  the chat template, tested in a sandbox
requests        check and adapt request bodies
proxy           the HTTP application: its own routes; everything else is forwarded
security        checks before every route: hosts, origins, keys, sizes; security headers
http            one HTTP exchange: bodies, responses, disconnects
client_timeouts close connections whose request headers do not arrive, or whose response is not read
errors          errors in OpenAI's format
metrics         counters for Prometheus, and the access log
listening       addresses and keys
page            the files of the chat page (in chat_page/), and its content security policy
server          the process: socket, signals, start and end
"""
