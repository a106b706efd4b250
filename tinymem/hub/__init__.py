"""Publishing to the Hugging Face Hub, and taking from it. To come; it stands above `report` and `runs`."""
