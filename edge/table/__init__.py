"""The MobileNetV2 table: ten published rows from 2019, and the same protocol on this machine."""
