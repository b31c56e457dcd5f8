"""Chat with a language model: context window, saved chats and the terminal interface."""
