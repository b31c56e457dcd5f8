"""Describe this machine: its devices, its accelerators and the profiles that they match; how to make it fastest."""

# The commands that put a machine into its fastest steady state: the same words in `edge doctor` and `edge bench`.
FASTEST_GOVERNOR = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
FASTEST_GOVERNOR_JETSON = "sudo nvpmodel -m 0 && sudo jetson_clocks"
FULL_POWER_MODE = "sudo nvpmodel -m 0 (Orin Nano with JetPack 6.2: -m 2), then sudo jetson_clocks"
FIXED_GPU_CLOCK = "sudo jetson_clocks"
