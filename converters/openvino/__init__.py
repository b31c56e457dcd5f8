"""OpenVINO IR: errors by layer, and compatibility with the Movidius sticks."""
