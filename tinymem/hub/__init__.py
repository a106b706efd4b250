"""Publishing to the Hugging Face Hub, and downloading from it. Planned; its layer is above `report` and `runs`."""
