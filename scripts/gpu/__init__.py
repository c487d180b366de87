"""What scripts/gpu.sh needs: a folder to carry to a machine without a network, and what is run there."""
